//! A small disk of a test's own, which can be full.

use std::{fs::File, io::Write, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A file system in memory, gone with the value, and a file in it.
pub(super) struct Disk {
    directory: TempDir,
    pub(super) path: PathBuf,
}

impl Disk {
    /// None, and a word about it, where this process may not mount any.
    pub(super) fn new(mebibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mount = ["-t", "tmpfs", "-o", &size, "prism-disk"];
        let mounted = Command::new("mount").args(mount).arg(directory.path()).output();
        let refusal = match mounted {
            Ok(output) if output.status.success() => {
                let path = directory.path().join("prism.db");
                return Some(Self { directory, path });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        println!("ignored: there is no disk to fill, for nothing can be mounted here ({refusal})");
        None
    }

    fn other(&self) -> PathBuf {
        self.directory.path().join("other")
    }

    /// Others take all the room that is left.
    pub(super) fn fill(&self) {
        let mut other = File::options()
            .create(true)
            .append(true)
            .open(self.other())
            .unwrap();
        while other.write(&[7; 4_096]).is_ok_and(|written| written > 0) {}
    }

    /// And give it back.
    pub(super) fn clear(&self) {
        std::fs::remove_file(self.other()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.directory.path())
            .status();
    }
}
