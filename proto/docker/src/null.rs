//! How Go's decoder treats `null` and its encoder treats zero values, as serde helpers.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default.
///
/// # Errors
/// Whatever reading a `T` from the value that stands there yields.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value is what Go's `omitempty` leaves out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares bodies whose fields are written in the given case and may each be missing or `null`.
macro_rules! body {
    ($case:literal; $($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = $case)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(default, deserialize_with = "crate::null::or_default")]
                pub $field: $type,
            )*
        }
    )*};
}

/// Bodies named as most of the API is: `HostConfig`.
macro_rules! dto {
    ($($body:tt)*) => { crate::null::body! { "PascalCase"; $($body)* } };
}

/// Bodies named as `read_bytes`.
macro_rules! snake_dto {
    ($($body:tt)*) => { crate::null::body! { "snake_case"; $($body)* } };
}

/// Bodies named as `linkTarget`.
macro_rules! camel_dto {
    ($($body:tt)*) => { crate::null::body! { "camelCase"; $($body)* } };
}

pub(crate) use body;
pub(crate) use camel_dto;
pub(crate) use dto;
pub(crate) use snake_dto;
