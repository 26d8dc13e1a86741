//! How many files this process may have open. Each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For what is no connection of a client: the other ports, runners, files, and whatever an embedded runner
/// keeps open.
const RESERVE: u64 = 512;

/// Lets this process have as many files open as it may allow itself. Systems begin with fewer, for the sake of
/// programs that cannot count further.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files cannot be raised");
    }
}

/// As many of these connections as there can be beside everything else. More would take the last files, and
/// with them the answers to probes and the way to runners.
pub(crate) fn leave_some(connections: usize) -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return connections;
    };
    let most = beside_the_reserve(files);
    if connections <= most {
        return connections;
    }
    tracing::warn!(
        "`limits.connections` is `{connections}`, and this process may have `{files}` files open: no more \
         than `{most}` clients are connected at once; raise the limit of open files, or say so in the key"
    );
    most
}

fn beside_the_reserve(files: u64) -> usize {
    // Where there is little, a half.
    let most = files - RESERVE.min(files / 2);
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_left_of_any_limit() {
        for (files, most) in [(0, 0), (100, 50), (1_024, 512), (20_000, 19_488)] {
            assert_eq!(beside_the_reserve(files), most);
        }
    }
}
