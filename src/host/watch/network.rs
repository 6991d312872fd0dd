//! Which folders send no notifications of what other machines do.

use std::path::Path;

/// File systems behind which somebody else may write, by the numbers of Linux's `statfs`
/// (`include/uapi/linux/magic.h` and the file systems' own headers).
#[cfg(target_os = "linux")]
const REMOTE: [i128; 14] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x6573_5546, // FUSE: sshfs, rclone, …
    0x0102_1997, // 9P
    0x00C3_6400, // Ceph
    0x5346_414F, // AFS
    0x6B41_4653, // AFS of the kernel
    0x7375_7245, // Coda
    0x564C,      // NCP
    0x786F_4256, // VirtualBox's shared folders
    0x0BD0_0BD0, // Lustre
    0x0116_1970, // GFS2
];

/// Returns why a folder has to be polled, where it has to.
#[cfg(target_os = "linux")]
pub(super) fn reason(path: &Path) -> Option<&'static str> {
    // The type's width and sign differ between machines; its lower half is the number.
    let number = i128::from(rustix::fs::statfs(path).ok()?.f_type) & 0xFFFF_FFFF;
    REMOTE.contains(&number).then_some("network folder")
}

/// Returns why a folder has to be polled, where it has to.
#[cfg(not(target_os = "linux"))]
pub(super) fn reason(path: &Path) -> Option<&'static str> {
    // A share named by its server; a share behind a drive letter is found by the half-hourly scan.
    let is_share = path.to_string_lossy().starts_with(r"\\") && !path.to_string_lossy().starts_with(r"\\?\");
    (cfg!(windows) && is_share).then_some("network folder")
}
