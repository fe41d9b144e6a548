//! The Docker Engine API over core: translate, call, translate back.

mod convert;
mod wire;
