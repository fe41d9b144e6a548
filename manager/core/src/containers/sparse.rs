//! How a container's record is written: without what is as it is by default, which is nearly all of it. A reader, also an earlier one, takes
//! what is missing as the default (`#[serde(default)]` on each of these types, since the first version).

/// Whether a field need not be written.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares parts of the record whose fields are written only where they differ from the default, and may each be missing.
macro_rules! sparse {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "crate::containers::sparse::is_default")] pub $field: $type,)*
        }
    )*};
}

pub(super) use sparse;
