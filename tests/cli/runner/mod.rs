pub mod play;
pub mod script;
