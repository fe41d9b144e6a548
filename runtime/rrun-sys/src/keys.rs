//! keyctl(2) and add_key(2): secrets in the kernel, in the keyring of the user that the process runs as.

use std::ffi::CStr;

use crate::error::{Result, check};

/// Of keyctl(2): the keyring of the real user id, which lasts until the next boot.
const USER_KEYRING: i32 = -4;
const TYPE: &CStr = c"user";
/// All rights for whoever possesses the key and for processes of its owner; none for group and others.
const OWNER_ALONE: u32 = 0x3f3f_0000;
const KEYCTL_UNLINK: i32 = 9;
const KEYCTL_SEARCH: i32 = 10;
const KEYCTL_READ: i32 = 11;

/// Adds or replaces a secret in the user's keyring, for processes of that user alone.
///
/// # Errors
/// EDQUOT for a full keyring, EINVAL for more than 32767 bytes, ENOSYS or EPERM where there are no keyrings for us.
pub fn store_user_key(description: &CStr, secret: &[u8]) -> Result<()> {
    // SAFETY: type and description are NUL-terminated, the payload is as long as is said.
    let ret = unsafe { libc::syscall(libc::SYS_add_key, TYPE.as_ptr(), description.as_ptr(), secret.as_ptr(), secret.len(), USER_KEYRING) };
    let key = check(ret, "add_key", || description.to_string_lossy().into_owned())? as i32;
    crate::process::set_key_permissions(key, OWNER_ALONE)
}

/// The secret under that description.
///
/// # Errors
/// ENOKEY when there is none; ENOSYS or EPERM where there are no keyrings for us.
pub fn read_user_key(description: &CStr) -> Result<Vec<u8>> {
    let key = find(description)?;
    let mut secret = Vec::new();
    loop {
        // SAFETY: the kernel writes no more than the buffer's length, and says how much there is.
        let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_READ, key, secret.as_mut_ptr(), secret.len()) };
        let length = check(ret, "keyctl", || format!("read {}", description.to_string_lossy()))? as usize;
        if length <= secret.len() {
            secret.truncate(length);
            return Ok(secret);
        }
        secret.resize(length, 0);
    }
}

/// Takes the secret out of the keyring.
///
/// # Errors
/// As [`read_user_key`].
pub fn remove_user_key(description: &CStr) -> Result<()> {
    let key = find(description)?;
    // SAFETY: integers only.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, key, USER_KEYRING) };
    check(ret, "keyctl", || format!("unlink {}", description.to_string_lossy())).map(drop)
}

fn find(description: &CStr) -> Result<i32> {
    // SAFETY: type and description are NUL-terminated; no destination keyring.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SEARCH, USER_KEYRING, TYPE.as_ptr(), description.as_ptr(), 0) };
    check(ret, "keyctl", || format!("search {}", description.to_string_lossy())).map(|key| key as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_replaced_and_removed() {
        let name = std::ffi::CString::new(format!("rrun-sys test {}", std::process::id())).expect("no NUL");
        assert!(read_user_key(&name).is_err());
        for secret in [&b"first"[..], &[7; 5000]] {
            store_user_key(&name, secret).expect("store");
            assert_eq!(read_user_key(&name).expect("read"), secret);
        }
        remove_user_key(&name).expect("remove");
        assert!(read_user_key(&name).is_err());
        assert!(remove_user_key(&name).is_err());
    }
}
