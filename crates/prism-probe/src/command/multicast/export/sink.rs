//! Where lines go: stdout, or a file that is there as a whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{BufWriter, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{
    fault::{Fault, Stop},
    output::{Format, Output},
};

/// As other programs make files; the process's mask takes away from it.
const MODE: u32 = 0o666;

/// Where lines go.
pub(super) enum Sink {
    Stdout,
    /// A pipe, a device: something that cannot be replaced.
    Special(BufWriter<File>, PathBuf),
    /// It takes the place of what is there when it is complete; without that, it is gone.
    Replacing(BufWriter<NamedTempFile>, PathBuf),
}

impl Sink {
    /// Of a file, or stdout for `-`.
    pub(super) fn open(file: &Path) -> Result<Self, Stop> {
        if file.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let fault = |error: std::io::Error| {
            Fault::usage("file", format!("`{}` cannot be written: {error}", file.display()))
        };
        if is_special(file) {
            // Appending is no matter to a pipe, and keeps what a shell has sent to a file before.
            let special = OpenOptions::new().append(true).open(file).map_err(fault)?;
            return Ok(Self::Special(BufWriter::new(special), file.to_owned()));
        }
        // What a link points at is replaced, not the link.
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        Ok(Self::Replacing(
            BufWriter::new(beside(&target).map_err(fault)?),
            target,
        ))
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self, Self::Stdout)
    }

    /// Who sees the lines themselves needs no bar among them.
    pub(super) fn shows_bar(&self, format: Format) -> Format {
        let among = self.is_stdout() && std::io::stdout().is_terminal();
        if among { Format::Json } else { format }
    }

    pub(super) fn write(&mut self, lines: &[u8], output: &mut Output) -> Result<(), Stop> {
        let (written, file) = match self {
            Self::Stdout => return output.raw(lines),
            Self::Special(special, file) => (special.write_all(lines), file),
            Self::Replacing(kept, file) => (kept.write_all(lines), file),
        };
        written.map_err(|error| unwritable(file, &error))
    }

    /// Everything was written.
    pub(super) fn complete(self) -> Result<(), Stop> {
        match self {
            Self::Stdout => Ok(()),
            Self::Special(mut special, file) => special.flush().map_err(|error| unwritable(&file, &error)),
            Self::Replacing(kept, file) => {
                let kept = kept
                    .into_inner()
                    .map_err(|error| unwritable(&file, error.error()))?;
                // Nothing has this name before all of it is on the disk.
                kept.as_file()
                    .sync_all()
                    .map_err(|error| unwritable(&file, &error))?;
                kept.persist(&file)
                    .map(drop)
                    .map_err(|error| unwritable(&file, &error.error))
            }
        }
    }
}

/// Whether it is something that another file cannot take the place of: a pipe, a device, or what `/dev/stdout` and
/// its like stand for, whatever that is.
fn is_special(file: &Path) -> bool {
    let belongs_to_the_system = ["/dev", "/proc"].iter().any(|root| file.starts_with(root));
    belongs_to_the_system || fs::metadata(file).is_ok_and(|there| !there.is_file())
}

/// A file that nobody knows of yet, where it can take the place of the target in one step.
fn beside(target: &Path) -> std::io::Result<NamedTempFile> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".part")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
}

fn unwritable(file: &Path, error: &std::io::Error) -> Stop {
    Fault::internal(format!("`{}` cannot be written: {error}", file.display())).into()
}
