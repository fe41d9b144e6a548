//! What a person at a terminal, and a configuration file, can rely on: replayed with every client where docker's behave alike.

mod configuration;
mod credentials;
mod help;
mod remote;
mod templates;
mod terminal;
