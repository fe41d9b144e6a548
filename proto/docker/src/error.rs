//! The body of every answer with a status of 400 or above.

use crate::null::snake_dto;

snake_dto! {
    /// `{"message": "…"}`.
    pub struct ErrorResponse {
        /// One line for a person.
        pub message: String,
    }
}
