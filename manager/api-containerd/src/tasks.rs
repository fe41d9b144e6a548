//! `ctr tasks`: what runs. Docker's containers can be looked at, signalled, waited for and exec'd into; they are started and removed by
//! the Docker API alone.

use prost::{Message, Name};
use prost_types::Any;
use proto_containerd::containerd::v1::types as wire;
use proto_containerd::runc::v1::ProcessDetails;
use proto_containerd::services::tasks::v1 as api;
use proto_containerd::services::tasks::v1::tasks_server::Tasks;
use proto_containerd::types::{Metric, Mount as WireMount};
use rcontainerd_core::primitives::store::records::AnyValue;
use rcontainerd_core::primitives::task::{ExecProcess, Mount, ProcessInfo, ProcessState, ProcessStatus, Stdio, Task, TaskKey};
use rcontainerd_core::primitives::tasks::{CreateTask, Deleted};
use rcontainerd_types::Error;
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

fn wire_info(process: ProcessInfo) -> wire::ProcessInfo {
    let details = |exec_id| Any { type_url: ProcessDetails::full_name(), value: ProcessDetails { exec_id }.encode_to_vec() };
    wire::ProcessInfo { pid: process.pid, info: process.exec_id.map(details) }
}

fn mount(mount: WireMount) -> Mount {
    Mount { fstype: mount.r#type, source: mount.source, target: mount.target, options: mount.options }
}

fn exec(exec_id: &str) -> Option<&str> {
    if exec_id.is_empty() { None } else { Some(exec_id) }
}

fn key<T>(request: &Request<T>, id: &str) -> Result<TaskKey, Status> {
    Ok(TaskKey { namespace: namespace(request)?, id: id.to_owned() })
}

fn delete_response(id: String, deleted: Deleted) -> Response<api::DeleteResponse> {
    let (exit_status, exited_at) = (deleted.exit.code, system_time(deleted.exit.exited_at));
    Response::new(api::DeleteResponse { id, pid: deleted.pid, exit_status, exited_at })
}

impl Service {
    async fn task<T>(&self, request: &Request<T>, id: &str) -> Result<Task, Status> {
        self.core.primitive_tasks.get(&key(request, id)?).await.map_err(status)
    }
}

#[tonic::async_trait]
impl Tasks for Service {
    async fn create(&self, request: Request<api::CreateTaskRequest>) -> Answer<api::CreateTaskResponse> {
        let key = key(&request, &request.get_ref().container_id)?;
        let request = request.into_inner();
        if request.checkpoint.is_some() {
            return unimplemented("restoring a task from a checkpoint");
        }
        if !request.task_api_address.is_empty() {
            return unimplemented("a task of a sandbox that serves the task API itself");
        }
        let create = CreateTask {
            key,
            rootfs: request.rootfs.into_iter().map(mount).collect(),
            stdio: Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
            terminal: request.terminal,
            options: request.options.map(|any| AnyValue { type_url: any.type_url, value: any.value }),
            runtime_path: request.runtime_path,
        };
        let task = self.core.primitive_tasks.create(create).await.map_err(status)?;
        Ok(Response::new(api::CreateTaskResponse { container_id: request.container_id, pid: task.pid() }))
    }

    async fn start(&self, request: Request<api::StartRequest>) -> Answer<api::StartResponse> {
        let message = request.get_ref().clone();
        let pid = self.task(&request, &message.container_id).await?.start(exec(&message.exec_id)).await.map_err(status)?;
        Ok(Response::new(api::StartResponse { pid }))
    }

    async fn delete(&self, request: Request<api::DeleteTaskRequest>) -> Answer<api::DeleteResponse> {
        let key = key(&request, &request.get_ref().container_id)?;
        let deleted = self.core.primitive_tasks.delete(&key).await.map_err(status)?;
        Ok(delete_response(request.into_inner().container_id, deleted))
    }

    async fn delete_process(&self, request: Request<api::DeleteProcessRequest>) -> Answer<api::DeleteResponse> {
        let key = key(&request, &request.get_ref().container_id)?;
        let exec_id = request.into_inner().exec_id;
        let deleted = self.core.primitive_tasks.delete_process(&key, &exec_id).await.map_err(status)?;
        Ok(delete_response(exec_id, deleted))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Answer<api::GetResponse> {
        let (id, exec_id) = (request.get_ref().container_id.clone(), request.get_ref().exec_id.clone());
        let state = self.task(&request, &id).await?.state(exec(&exec_id)).await.map_err(status)?;
        Ok(Response::new(api::GetResponse { process: Some(wire(&id, &exec_id, state)) }))
    }

    async fn list(&self, request: Request<api::ListTasksRequest>) -> Answer<api::ListTasksResponse> {
        let namespace = namespace(&request)?;
        let found = self.core.primitive_tasks.list(&namespace).await.map_err(status)?;
        let tasks = found.into_iter().map(|(task, state)| wire(&task.key().id, "", state)).collect();
        Ok(Response::new(api::ListTasksResponse { tasks }))
    }

    async fn kill(&self, request: Request<api::KillRequest>) -> Answer<()> {
        let message = request.get_ref().clone();
        let task = self.task(&request, &message.container_id).await?;
        task.kill(exec(&message.exec_id), message.signal, message.all).await.map_err(status).map(Response::new)
    }

    async fn exec(&self, request: Request<api::ExecProcessRequest>) -> Answer<()> {
        let key = key(&request, &request.get_ref().container_id)?;
        let request = request.into_inner();
        let process = ExecProcess {
            exec_id: request.exec_id,
            process_json: request.spec.map(|any| any.value).unwrap_or_default(),
            terminal: request.terminal,
            stdio: Stdio { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
        };
        self.core.primitive_tasks.exec(&key, process).await.map_err(status).map(Response::new)
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
        let processes = pids.into_iter().map(wire_info).collect();
        Ok(Response::new(api::ListPidsResponse { processes }))
    }

    async fn checkpoint(&self, _request: Request<api::CheckpointTaskRequest>) -> Answer<api::CheckpointTaskResponse> {
        unimplemented("checkpoint")
    }

    async fn update(&self, request: Request<api::UpdateTaskRequest>) -> Answer<()> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        task.update(resources, request.annotations).await.map_err(status).map(Response::new)
    }

    /// Of the tasks that run: one that has ended has none to tell.
    async fn metrics(&self, request: Request<api::MetricsRequest>) -> Answer<api::MetricsResponse> {
        let namespace = namespace(&request)?;
        let filters = Filters::parse(&request.get_ref().filters).map_err(status)?;
        let mut metrics = Vec::new();
        for (task, _) in self.core.primitive_tasks.list(&namespace).await.map_err(status)? {
            let id = task.key().id.clone();
            let passes = filters.pass(|path| match path {
                ["id"] => Some(id.clone()),
                ["namespace"] => Some(namespace.clone()),
                _ => None,
            });
            if !passes {
                continue;
            }
            match task.stats().await {
                Ok((type_url, value)) => {
                    let timestamp = system_time(std::time::SystemTime::now());
                    metrics.push(Metric { timestamp, id, data: Some(Any { type_url, value }) });
                }
                Err(err) => tracing::debug!(task = id, "metrics: {err}"),
            }
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
