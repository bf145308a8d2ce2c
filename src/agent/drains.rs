//! The drained gateways, in memory and in the state dir.
//!
//! The loop never waits for the disk: each access runs on a thread of its own, one at a time, and further
//! requests wait in order.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::journal::WayChange;
use crate::state::StateFile;
use crate::state::drained::{self, Drain};
use crate::state::patience::in_time;
use crate::state::store::Store;
use crate::status::control::Reply;

/// The pause before the next access, while memory and file differ.
const RETRY: Duration = Duration::from_secs(10);

/// A request to drain a gateway, or to end its drain.
#[derive(Debug)]
pub(super) struct DrainRequest {
    pub gateway: IpAddr,
    /// The program that drains the gateway; `None` to end the drain.
    pub by: Option<String>,
    pub answer: oneshot::Sender<Reply>,
}

/// The end of an access to the state dir.
#[derive(Debug)]
pub(super) enum Accessed {
    /// The file was read; the request waits for the answer.
    Read(Result<drained::Drains, String>, Option<DrainRequest>),
    /// The change of a request was written.
    Changed(Written, WayChange, DrainRequest),
    /// The known drains were written again.
    Restored(Written),
}

/// The result of writing these drains.
#[derive(Debug)]
pub(super) struct Written {
    drains: drained::Drains,
    result: Result<(), Fault>,
}

#[derive(Debug)]
struct Fault {
    why: String,
    /// The access has not ended: the file may change later.
    is_silent: bool,
}

/// A difference between memory and file.
#[derive(Debug, PartialEq, Eq)]
enum Doubt {
    /// The file was never read, for this reason: its drains are unknown.
    Unread(String),
    /// A write that was given up may have reached the file.
    Unsaved,
}

/// The drained gateways. A restart finds them in the state dir.
pub(super) struct Drains {
    state_dir: PathBuf,
    to_loop: UnboundedSender<Accessed>,
    /// The last known ones.
    known: drained::Drains,
    doubt: Option<Doubt>,
    retry_at: Option<Instant>,
    busy: bool,
    waiting: VecDeque<DrainRequest>,
}

impl Drains {
    /// Reads the state dir. Later accesses end in `to_loop`.
    pub fn read(state_dir: &Path, to_loop: UnboundedSender<Accessed>) -> Drains {
        let mut drains = Drains {
            state_dir: state_dir.to_owned(),
            to_loop,
            known: drained::Drains::new(),
            doubt: None,
            retry_at: None,
            busy: false,
            waiting: VecDeque::new(),
        };
        // Before the first pass, the loop has nothing else to do.
        if let Err(why) = drains.take(read(state_dir)) {
            tracing::warn!("which gateways are drained is unknown: {why}");
        }
        drains
    }

    /// The drained gateways; `None` if they are unknown, and a pass looks at the state dir by itself.
    pub fn gateways(&self) -> Option<BTreeSet<IpAddr>> {
        let known = !matches!(self.doubt, Some(Doubt::Unread(_)));
        known.then(|| self.known.keys().copied().collect())
    }

    /// The drain of a gateway.
    pub fn of(&self, gateway: IpAddr) -> Option<&Drain> {
        self.known.get(&gateway)
    }

    /// The time of the next access; `None` while nothing is in doubt.
    pub fn due(&self) -> Option<Instant> {
        self.retry_at.filter(|_| !self.busy)
    }

    /// Compares memory and file again when the time has come.
    pub fn retry(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            match self.doubt {
                Some(Doubt::Unread(_)) => self.read_again(None),
                Some(Doubt::Unsaved) => self.write(self.known.clone(), Accessed::Restored),
                None => self.retry_at = None,
            }
        }
    }

    /// Returns the request if it can be decided now. Others come back by [`Accessed`] or
    /// [`Drains::next`].
    pub fn admit(&mut self, request: DrainRequest) -> Option<DrainRequest> {
        if self.busy {
            self.waiting.push_back(request);
        } else if matches!(self.doubt, Some(Doubt::Unread(_))) {
            self.read_again(Some(request));
        } else {
            return Some(request);
        }
        None
    }

    /// The next request that has waited for an access.
    pub fn next(&mut self) -> Option<DrainRequest> {
        (!self.busy).then(|| self.waiting.pop_front())?
    }

    /// Drains a gateway, or ends its drain. Gateways outside of the settings are forgotten. The change
    /// counts once it is on disk: a restart would undo it.
    pub fn change(
        &mut self,
        request: DrainRequest,
        drain: Option<Drain>,
        change: WayChange,
        configured: impl Fn(&IpAddr) -> bool,
    ) {
        let mut drains = self.known.clone();
        drains.retain(|known, _| configured(known));
        match drain {
            Some(drain) => drains.insert(request.gateway, drain),
            None => drains.remove(&request.gateway),
        };
        self.write(drains, |written| {
            Accessed::Changed(written, change, request)
        });
    }

    /// Takes the drains of the file.
    ///
    /// # Errors
    /// The file is unreadable: the last known drains stay.
    pub fn take(&mut self, read: Result<drained::Drains, String>) -> Result<(), String> {
        self.busy = false;
        match read {
            Ok(drains) => {
                (self.known, self.doubt, self.retry_at) = (drains, None, None);
                Ok(())
            }
            Err(error) => {
                let file = self.state_dir.join(StateFile::Drained.name());
                self.doubt = Some(Doubt::Unread(error.clone()));
                self.retry_at = Some(Instant::now() + RETRY);
                Err(format!(
                    "which gateways are drained is unknown ({error}): remove {} to begin with none",
                    file.display()
                ))
            }
        }
    }

    /// Takes the end of a write.
    ///
    /// # Errors
    /// The state dir refuses: nothing has changed.
    pub fn written(&mut self, written: Written) -> Result<(), String> {
        self.busy = false;
        match written.result {
            Ok(()) => {
                (self.known, self.doubt, self.retry_at) = (written.drains, None, None);
                Ok(())
            }
            Err(fault) => {
                if fault.is_silent {
                    self.doubt = Some(Doubt::Unsaved);
                }
                self.retry_at = self.doubt.as_ref().map(|_| Instant::now() + RETRY);
                Err(fault.why)
            }
        }
    }

    fn read_again(&mut self, request: Option<DrainRequest>) {
        let state_dir = self.state_dir.clone();
        self.access(move || Accessed::Read(read(&state_dir), request));
    }

    fn write(
        &mut self,
        drains: drained::Drains,
        over: impl FnOnce(Written) -> Accessed + Send + 'static,
    ) {
        let state_dir = self.state_dir.clone();
        self.access(move || {
            let result = write(&state_dir, &drains);
            over(Written { drains, result })
        });
    }

    fn access(&mut self, access: impl FnOnce() -> Accessed + Send + 'static) {
        self.busy = true;
        let to_loop = self.to_loop.clone();
        tokio::task::spawn_blocking(move || {
            // A failure means that the loop has ended.
            let _ = to_loop.send(access());
        });
    }
}

fn read(state_dir: &Path) -> Result<drained::Drains, String> {
    let store = Store::open(state_dir);
    let read = in_time(state_dir, move || drained::read(&store));
    let read = read.map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}

fn write(state_dir: &Path, drains: &drained::Drains) -> Result<(), Fault> {
    let (store, drains) = (Store::open(state_dir), drains.clone());
    let write = in_time(state_dir, move || {
        let created = store.create_directory();
        created.and_then(|()| drained::write(&store, &drains))
    });
    let fault = |why: String, is_silent| Fault { why, is_silent };
    match write {
        Ok(written) => written.map_err(|error| fault(error.to_string(), false)),
        Err(error) => Err(fault(error.to_string(), error.is_silent())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 10));

    fn drains() -> drained::Drains {
        let by = "drain, pid 17".to_owned();
        [(GATEWAY, Drain { since: 1, by })].into()
    }

    #[tokio::test]
    async fn unreadable_file_is_read_again_and_no_request_is_decided_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(StateFile::Drained.name());
        std::fs::write(&file, "garbage").unwrap();
        let (to_loop, mut accessed) = unbounded_channel();
        let mut known = Drains::read(dir.path(), to_loop);
        assert_eq!(known.gateways(), None);
        let request = |by: Option<&str>| DrainRequest {
            gateway: GATEWAY,
            by: by.map(str::to_owned),
            answer: oneshot::channel().0,
        };
        assert!(known.admit(request(None)).is_none());
        assert!(known.admit(request(Some("me"))).is_none(), "in order");
        let Some(Accessed::Read(read, Some(first))) = accessed.recv().await else {
            panic!("a request waits for the answer");
        };
        assert_eq!(first.by, None);
        assert!(known.take(read).unwrap_err().contains("drained.json"));
        assert!(known.due().is_some(), "tried again");

        write(dir.path(), &drains()).unwrap();
        known.retry(Instant::now() + RETRY);
        assert!(known.next().is_none(), "an access is under way");
        let Some(Accessed::Read(read, None)) = accessed.recv().await else {
            panic!("nobody has asked");
        };
        known.take(read).unwrap();
        assert_eq!(known.gateways(), Some([GATEWAY].into()));
        assert!(known.next().is_some_and(|next| next.by.is_some()));
        assert_eq!(known.due(), None);
    }

    #[tokio::test]
    async fn given_up_write_is_undone_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (to_loop, mut accessed) = unbounded_channel();
        let mut known = Drains::read(dir.path(), to_loop);
        let silent = Fault {
            why: "no answer".to_owned(),
            is_silent: true,
        };
        let late = Written {
            drains: drains(),
            result: Err(silent),
        };
        // The disk has done it all the same.
        write(dir.path(), &drains()).unwrap();
        assert!(known.written(late).is_err());
        assert_eq!(known.gateways(), Some(BTreeSet::new()));
        known.retry(Instant::now() + RETRY);
        let Some(Accessed::Restored(written)) = accessed.recv().await else {
            panic!("the known drains are written");
        };
        known.written(written).unwrap();
        assert_eq!(read(dir.path()), Ok(drained::Drains::new()));
        assert_eq!(known.due(), None);
    }
}
