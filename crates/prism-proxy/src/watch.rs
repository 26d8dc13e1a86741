//! Notices that a file has changed, by looking at it.
//!
//! Looking needs no help from the file system, and sees what matters: a file written in place, one moved
//! over it, and a symbolic link on the way that was swapped, as Kubernetes does with a ConfigMap.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often is looked. A change counts once it has been seen twice alike, so that a file which is being
/// written is not read halfway.
pub const PERIOD: Duration = Duration::from_millis(500);

/// Looks at one file.
#[derive(Debug)]
pub struct FileWatch {
    file: PathBuf,
    settled: Option<Look>,
}

/// What tells one state of a file from another; symbolic links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileWatch {
    /// Counts changes from now on. Made before a file is first read, it misses none.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        Self {
            settled: look(&file),
            file,
        }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Resolves when the file has changed and settled. A file that is gone has not changed: it may be on
    /// its way back. Cancellation safe.
    pub async fn changed(&mut self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = look(&self.file);
            if now.is_some() && now != self.settled && now == seen {
                self.settled = now;
                return;
            }
            seen = now;
        }
    }
}

fn look(file: &Path) -> Option<Look> {
    let metadata = std::fs::metadata(file).ok()?;
    Some(Look {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    /// Changes are noticed within two periods after the file has settled.
    const SOON: Duration = Duration::from_millis(1_600);

    #[tokio::test(start_paused = true)]
    async fn a_file_written_in_place_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(&file);
        assert!(
            timeout(SOON * 10, watch.changed()).await.is_err(),
            "nothing has changed"
        );
        fs::write(&file, "other").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        assert!(timeout(SOON * 10, watch.changed()).await.is_err(), "that was all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_to_the_directory_is_noticed() {
        // The layout of a mounted ConfigMap: file → ..data/file, ..data → a directory for each version.
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.yaml"), "same size").unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        let mut watch = FileWatch::new(at("a.yaml"));
        symlink("v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_gone_for_a_moment_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = FileWatch::new(&file);
        fs::remove_file(&file).unwrap();
        assert!(timeout(SOON, watch.changed()).await.is_err());
        fs::write(&file, "back again").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_keeps_changing_is_not_read_halfway() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        fs::write(&file, "").unwrap();
        let mut watch = FileWatch::new(&file);
        let writing = async {
            for length in 1..20 {
                fs::write(&file, "x".repeat(length)).unwrap();
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            biased;
            () = watch.changed() => panic!("read while it was being written"),
            () = writing => {}
        }
        timeout(SOON, watch.changed()).await.unwrap();
    }
}
