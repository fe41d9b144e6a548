//! The containerd API's messages, generated from `proto/`; the gRPC services only with the feature `grpc`, so that the shim
//! carries none of it. Modules mirror the protobuf packages.
#![allow(clippy::all, clippy::too_many_lines, reason = "generated code")]

/// The generated code of one package.
macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}

pub mod containerd {
    pub mod types {
        package!("containerd.types");
        pub mod transfer {
            package!("containerd.types.transfer");
        }
    }
    pub mod v1 {
        pub mod types {
            package!("containerd.v1.types");
        }
    }
    pub mod events {
        package!("containerd.events");
    }
    pub mod task {
        pub mod v3 {
            package!("containerd.task.v3");
        }
    }
    pub mod runc {
        pub mod v1 {
            package!("containerd.runc.v1");
        }
    }
    pub mod linux {
        pub mod runc {
            package!("containerd.linux.runc");
        }
    }
    pub mod runtime {
        pub mod bootstrap {
            pub mod v1 {
                package!("containerd.runtime.bootstrap.v1");
            }
        }
        pub mod sandbox {
            pub mod v1 {
                package!("containerd.runtime.sandbox.v1");
            }
        }
    }
    pub mod services {
        #[cfg(feature = "grpc")]
        pub mod containers {
            pub mod v1 {
                package!("containerd.services.containers.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod content {
            pub mod v1 {
                package!("containerd.services.content.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod diff {
            pub mod v1 {
                package!("containerd.services.diff.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod images {
            pub mod v1 {
                package!("containerd.services.images.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod introspection {
            pub mod v1 {
                package!("containerd.services.introspection.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod leases {
            pub mod v1 {
                package!("containerd.services.leases.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod namespaces {
            pub mod v1 {
                package!("containerd.services.namespaces.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod sandbox {
            pub mod v1 {
                package!("containerd.services.sandbox.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod snapshots {
            pub mod v1 {
                package!("containerd.services.snapshots.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod streaming {
            pub mod v1 {
                package!("containerd.services.streaming.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod tasks {
            pub mod v1 {
                package!("containerd.services.tasks.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod transfer {
            pub mod v1 {
                package!("containerd.services.transfer.v1");
            }
        }
        #[cfg(feature = "grpc")]
        pub mod version {
            pub mod v1 {
                package!("containerd.services.version.v1");
            }
        }
        pub mod events {
            #[cfg(feature = "grpc")]
            pub mod v1 {
                package!("containerd.services.events.v1");
            }
            pub mod ttrpc {
                pub mod v1 {
                    package!("containerd.services.events.ttrpc.v1");
                }
            }
        }
    }
}

pub mod runtimeoptions {
    pub mod v1 {
        package!("runtimeoptions.v1");
    }
}

/// What a shim reads of a pod's configuration.
pub mod pod {
    package!("runtime.v1");
}

pub mod io {
    pub mod containerd {
        pub mod cgroups {
            pub mod v1 {
                package!("io.containerd.cgroups.v1");
            }
            pub mod v2 {
                package!("io.containerd.cgroups.v2");
            }
        }
    }
}

/// Our own services beside containerd's.
#[cfg(feature = "grpc")]
pub mod rcontainerd {
    pub mod admin {
        pub mod v1 {
            package!("rcontainerd.admin.v1");
        }
    }
}

#[cfg(feature = "grpc")]
pub mod grpc {
    pub mod health {
        pub mod v1 {
            package!("grpc.health.v1");
        }
    }
}

pub use containerd::{events, runc, runtime, services, task, types};
pub use io::containerd::cgroups;
