//! The four programs together, through the Docker API's socket: each test has a manager of its own.

mod archives;
mod bad_input;
mod basics;
mod df;
mod fsck;
mod health;
mod links;
mod logs;
mod network;
mod pull;
mod survival;
mod user_networks;
