//! The four programs together, through the Docker API's socket: each test has a manager of its own.

mod bad_input;
mod basics;
mod network;
mod pull;
mod survival;
