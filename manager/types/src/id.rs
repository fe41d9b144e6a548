//! Identifiers: 64 hex digits for Docker's objects, containerd's identifier rule for client-chosen ones.

use crate::{Error, Result};

/// Length of a full Docker object id, in hex digits.
pub const ID_LEN: usize = 64;
/// Length of the short form that people see.
pub const SHORT_LEN: usize = 12;
/// containerd's limit for an identifier (`pkg/identifiers`).
const IDENTIFIER_MAX: usize = 76;

/// A fresh random id of 64 lower-case hex digits, never all decimal in its short form
/// (such a short id would be taken for a number where it is used as a host name).
///
/// # Errors
/// When the kernel's random source fails.
pub fn generate() -> Result<String> {
    loop {
        let mut bytes = [0u8; ID_LEN / 2];
        getrandom::fill(&mut bytes).map_err(|err| Error::internal(format!("read random bytes for an id: {err}")))?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if id[..SHORT_LEN].bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// The first twelve digits, as shown in tables.
pub fn short(id: &str) -> &str {
    id.get(..SHORT_LEN).unwrap_or(id)
}

/// Whether `id` may name a containerd object: `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*`, at most 76 bytes.
///
/// # Errors
/// `InvalidArgument` naming the id and the rule.
pub fn validate_identifier(id: &str) -> Result<()> {
    let rule = "expected letters and digits, separated by single '.', '_' or '-', at most 76 bytes";
    let well_formed = !id.is_empty()
        && id.len() <= IDENTIFIER_MAX
        && id.split(['.', '_', '-']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
    if well_formed { Ok(()) } else { Err(Error::invalid(format!("identifier {id:?} is invalid: {rule}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_distinct_hex() {
        let (a, b) = (generate().expect("random"), generate().expect("random"));
        assert_ne!(a, b);
        assert_eq!(a.len(), ID_LEN);
        assert!(a.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
    }

    #[test]
    fn identifier_rule() {
        for good in ["a", "a.b-c_d", "0", &"x".repeat(76)] {
            validate_identifier(good).expect(good);
        }
        for bad in ["", "-a", "a-", "a..b", "a/b", "ä", &"x".repeat(77)] {
            assert!(validate_identifier(bad).is_err(), "{bad} should be refused");
        }
    }
}
