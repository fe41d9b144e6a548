//! `ctr tasks`: what runs can be looked at, signalled and waited for. Starting from beneath Docker's containers is not offered.

use prost_types::Any;
use proto_containerd::containerd::v1::types as wire;
use proto_containerd::services::tasks::v1 as api;
use proto_containerd::services::tasks::v1::tasks_server::Tasks;
use proto_containerd::types::Metric;
use rcontainerd_core::primitives::task::{ProcessState, ProcessStatus, Task, TaskKey};
use rcontainerd_types::{Error, Result};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::convert::{Answer, namespace, status, system_time, unimplemented};
use crate::filter::Filters;

fn wire(container_id: &str, exec_id: &str, state: ProcessState) -> wire::Process {
    let phase = match state.status {
        ProcessStatus::Unknown => wire::Status::Unknown,
        ProcessStatus::Created => wire::Status::Created,
        ProcessStatus::Running => wire::Status::Running,
        ProcessStatus::Stopped => wire::Status::Stopped,
        ProcessStatus::Paused => wire::Status::Paused,
        ProcessStatus::Pausing => wire::Status::Pausing,
    };
    wire::Process {
        container_id: container_id.to_owned(),
        // containerd names a container's main process by the container.
        id: if exec_id.is_empty() { container_id.to_owned() } else { exec_id.to_owned() },
        pid: state.pid,
        status: phase.into(),
        stdin: state.stdio.stdin,
        stdout: state.stdio.stdout,
        stderr: state.stdio.stderr,
        terminal: state.terminal,
        exit_status: state.exit.map_or(0, |exit| exit.code),
        exited_at: state.exit.and_then(|exit| system_time(exit.exited_at)),
    }
}

fn exec(exec_id: &str) -> Option<&str> {
    if exec_id.is_empty() { None } else { Some(exec_id) }
}

impl Service {
    async fn task<T>(&self, request: &Request<T>, id: &str) -> Result<Task, Status> {
        let key = TaskKey { namespace: namespace(request)?, id: id.to_owned() };
        let found = self.find(&key).await.map_err(status)?;
        found.ok_or_else(|| Status::not_found(format!("task {id:?} not found")))
    }

    /// The task, connected to anew if this manager has not met it.
    async fn find(&self, key: &TaskKey) -> Result<Option<Task>> {
        if let Some(task) = self.core.tasks.get(key) {
            return Ok(Some(task));
        }
        match self.core.tasks.list().await?.contains(key) {
            true => self.core.tasks.reattach(key).await,
            false => Ok(None),
        }
    }

    async fn tasks_of(&self, namespace: &str) -> Result<Vec<Task>> {
        let mut tasks = Vec::new();
        for key in self.core.tasks.list().await?.into_iter().filter(|key| key.namespace == namespace) {
            tasks.extend(self.find(&key).await?);
        }
        Ok(tasks)
    }
}

#[tonic::async_trait]
impl Tasks for Service {
    async fn create(&self, _request: Request<api::CreateTaskRequest>) -> Answer<api::CreateTaskResponse> {
        unimplemented("creating tasks by this API")
    }

    async fn start(&self, _request: Request<api::StartRequest>) -> Answer<api::StartResponse> {
        unimplemented("starting tasks by this API")
    }

    async fn delete(&self, _request: Request<api::DeleteTaskRequest>) -> Answer<api::DeleteResponse> {
        unimplemented("deleting tasks by this API")
    }

    async fn delete_process(&self, _request: Request<api::DeleteProcessRequest>) -> Answer<api::DeleteResponse> {
        unimplemented("deleting processes by this API")
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Answer<api::GetResponse> {
        let (id, exec_id) = (request.get_ref().container_id.clone(), request.get_ref().exec_id.clone());
        let state = self.task(&request, &id).await?.state(exec(&exec_id)).await.map_err(status)?;
        Ok(Response::new(api::GetResponse { process: Some(wire(&id, &exec_id, state)) }))
    }

    async fn list(&self, request: Request<api::ListTasksRequest>) -> Answer<api::ListTasksResponse> {
        let namespace = namespace(&request)?;
        let mut tasks = Vec::new();
        for task in self.tasks_of(&namespace).await.map_err(status)? {
            // A task that ends just now is no longer one of the list.
            if let Ok(state) = task.state(None).await {
                tasks.push(wire(&task.key().id, "", state));
            }
        }
        Ok(Response::new(api::ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<api::KillRequest>) -> Answer<()> {
        let message = request.get_ref().clone();
        let task = self.task(&request, &message.container_id).await?;
        task.kill(exec(&message.exec_id), message.signal, message.all).await.map_err(status).map(Response::new)
    }

    async fn exec(&self, _request: Request<api::ExecProcessRequest>) -> Answer<()> {
        unimplemented("exec by this API")
    }

    async fn resize_pty(&self, request: Request<api::ResizePtyRequest>) -> Answer<()> {
        let message = request.get_ref().clone();
        let task = self.task(&request, &message.container_id).await?;
        task.resize(exec(&message.exec_id), message.width, message.height).await.map_err(status).map(Response::new)
    }

    async fn close_io(&self, request: Request<api::CloseIoRequest>) -> Answer<()> {
        let message = request.get_ref().clone();
        let task = self.task(&request, &message.container_id).await?;
        match message.stdin {
            true => task.close_stdin(exec(&message.exec_id)).await.map_err(status).map(Response::new),
            false => Ok(Response::new(())),
        }
    }

    async fn pause(&self, request: Request<api::PauseTaskRequest>) -> Answer<()> {
        let id = request.get_ref().container_id.clone();
        self.task(&request, &id).await?.pause().await.map_err(status).map(Response::new)
    }

    async fn resume(&self, request: Request<api::ResumeTaskRequest>) -> Answer<()> {
        let id = request.get_ref().container_id.clone();
        self.task(&request, &id).await?.resume().await.map_err(status).map(Response::new)
    }

    async fn list_pids(&self, request: Request<api::ListPidsRequest>) -> Answer<api::ListPidsResponse> {
        let id = request.get_ref().container_id.clone();
        let pids = self.task(&request, &id).await?.pids().await.map_err(status)?;
        let processes = pids.into_iter().map(|process| wire::ProcessInfo { pid: process.pid, info: None }).collect();
        Ok(Response::new(api::ListPidsResponse { processes }))
    }

    async fn checkpoint(&self, _request: Request<api::CheckpointTaskRequest>) -> Answer<api::CheckpointTaskResponse> {
        unimplemented("checkpoint")
    }

    async fn update(&self, _request: Request<api::UpdateTaskRequest>) -> Answer<()> {
        unimplemented("updating tasks by this API")
    }

    async fn metrics(&self, request: Request<api::MetricsRequest>) -> Answer<api::MetricsResponse> {
        let namespace = namespace(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(status)?;
        let mut metrics = Vec::new();
        for task in self.tasks_of(&namespace).await.map_err(status)? {
            let id = task.key().id.clone();
            if !filters.pass(|path| (path == ["id"]).then(|| id.clone())) {
                continue;
            }
            let (type_url, value) = task.stats().await.map_err(status)?;
            let timestamp = system_time(std::time::SystemTime::now());
            metrics.push(Metric { timestamp, id, data: Some(Any { type_url, value }) });
        }
        Ok(Response::new(api::MetricsResponse { metrics }))
    }

    async fn wait(&self, request: Request<api::WaitRequest>) -> Answer<api::WaitResponse> {
        let (id, exec_id) = (request.get_ref().container_id.clone(), request.get_ref().exec_id.clone());
        let exit = self.task(&request, &id).await?.wait(exec(&exec_id)).await.map_err(status)?;
        if !exit.known {
            return Err(status(Error::not_found(format!("the exit status of {id:?} is not known"))));
        }
        Ok(Response::new(api::WaitResponse { exit_status: exit.code, exited_at: system_time(exit.exited_at) }))
    }
}
