//! The double itself: it takes a request, and answers as EC2 would.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::actions::{self, Action};
use crate::answer::{ApiError, HttpAnswer, Xml};
use crate::knobs::{Fault, Levels, Settings, Wrong};
use crate::log::{Call, Records};
use crate::model::Model;
use crate::request::Request;
use crate::state::State;

/// A double of EC2 in one region. A clone is a second handle of the same double.
#[derive(Clone)]
pub struct Cloud {
    inner: Arc<Mutex<Inner>>,
    hook: Arc<Mutex<Option<Hook>>>,
    model: Arc<Model>,
}

/// A function that runs before a call is taken.
type Hook = Box<dyn FnMut(&Cloud, usize, &Request) + Send>;

/// The state behind the handles.
pub(crate) struct Inner {
    pub settings: Settings,
    pub state: State,
    pub records: Records,
    /// States before the last calls, for reads that lag.
    snapshots: VecDeque<State>,
    levels: Levels,
    faults: BTreeMap<usize, Fault>,
    throttled: usize,
    index: usize,
    /// The number of reads: the clock of changes in progress.
    pub reads: usize,
    /// True if objects changed since the records were written.
    pub changed: bool,
    clock: Clock,
}

/// The source of the time.
enum Clock {
    Real(Instant),
    Manual(Duration),
}

impl Default for Cloud {
    fn default() -> Cloud {
        Cloud::new()
    }
}

impl Cloud {
    /// An account without any object.
    pub fn new() -> Cloud {
        let inner = Inner {
            settings: Settings::default(),
            state: State::default(),
            records: Records::default(),
            snapshots: VecDeque::new(),
            levels: Levels::default(),
            faults: BTreeMap::new(),
            throttled: 0,
            index: 0,
            reads: 0,
            changed: false,
            clock: Clock::Real(Instant::now()),
        };
        Cloud {
            inner: Arc::new(Mutex::new(inner)),
            hook: Arc::default(),
            model: Arc::new(Model::new()),
        }
    }

    /// Takes a request: the form in the body of a `POST`.
    pub fn answer(&self, body: &str) -> HttpAnswer {
        self.answer_or_refuse(body, None)
    }

    /// Takes a request whose signature or head is wrong.
    pub(crate) fn refuse(&self, body: &str, error: ApiError) -> HttpAnswer {
        self.answer_or_refuse(body, Some(error))
    }

    /// The region.
    pub(crate) fn region(&self) -> String {
        self.lock().settings.region.clone()
    }

    fn answer_or_refuse(&self, body: &str, refusal: Option<ApiError>) -> HttpAnswer {
        let request = Request::parse(body);
        let index = {
            let mut inner = self.lock();
            inner.index += 1;
            inner.index - 1
        };
        self.run_hook(index, &request);
        self.lock().take(index, &request, refusal, &self.model)
    }

    /// Runs the hook. A call by the hook itself, or during the hook, runs without a hook.
    fn run_hook(&self, index: usize, request: &Request) {
        let Ok(mut slot) = self.hook.try_lock() else {
            return;
        };
        if let Some(hook) = slot.as_mut() {
            hook(self, index, request);
        }
    }

    /// Sets a function that runs before each call is taken, with the call's index from 0. A second
    /// writer acts in it; its calls have indexes of their own.
    pub fn before_call(&self, hook: impl FnMut(&Cloud, usize, &Request) + Send + 'static) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    /// Changes the settings.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().settings);
    }

    /// Makes the call with this index, from 0, go wrong.
    pub fn fail(&self, index: usize, fault: Fault) {
        self.lock().faults.insert(index, fault);
    }

    /// Makes the next call go wrong.
    pub fn fail_next(&self, fault: Fault) {
        let mut inner = self.lock();
        let index = inner.index;
        inner.faults.insert(index, fault);
    }

    /// Answers the next calls with `RequestLimitExceeded`.
    pub fn throttle(&self, calls: usize) {
        self.lock().throttled = calls;
    }

    /// Stops the clock of token buckets and of the log, and sets the time since the start.
    pub fn set_time(&self, now: Duration) {
        self.lock().clock = Clock::Manual(now);
    }

    /// Exclusive access. A panic of another test thread doesn't spoil the double.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The time since the start.
    fn now(&self) -> Duration {
        match self.clock {
            Clock::Real(start) => start.elapsed(),
            Clock::Manual(now) => now,
        }
    }

    /// The number of calls that came, those included that wait for the hook.
    pub(crate) fn calls(&self) -> usize {
        self.index
    }

    /// Ends the changes that are due, and notes what they did.
    pub(crate) fn settle(&mut self) {
        let reads = self.reads;
        let keep = self.settings.versions;
        let due = self.state.lists.iter().filter(|(_, list)| {
            let change = list.change.as_ref();
            change.is_some_and(|change| change.due <= reads)
        });
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            actions::finish(&mut self.state, &id, keep);
            self.changed = true;
        }
        if std::mem::take(&mut self.changed) {
            self.records.note(&self.state);
        }
    }

    /// Takes a call: fault, permission, contract, effect, record.
    fn take(
        &mut self,
        index: usize,
        request: &Request,
        refusal: Option<ApiError>,
        model: &Model,
    ) -> HttpAnswer {
        self.settle();
        if self.settings.lag > 0 {
            self.snapshots.push_back(self.state.clone());
            while self.snapshots.len() > self.settings.lag + 1 {
                self.snapshots.pop_front();
            }
        }
        let action = actions::find(&request.action);
        let mutating = matches!(action, Some(Action::Write(_)));
        let fault = self.faults.remove(&index);
        let before = fault.as_ref().filter(|fault| !fault.after_effect);
        let at = self.now();
        let request_id = request_id(index);
        self.records.calls.push(Call {
            index,
            action: request.action.clone(),
            parameters: request.parameters.clone(),
            mutating,
            dry_run: request.flag("DryRun"),
            at,
            error: None,
        });
        let place = self.records.calls.len() - 1;
        let contract = match refusal {
            Some(refusal) => Err(refusal),
            None => model.check(request),
        };
        self.note_misuse(request, contract.as_ref().err());
        let result = match before.map(|fault| &fault.wrong) {
            Some(Wrong::Slow(_)) | None => {
                let admitted = self.admit(request, mutating, at);
                let result = match admitted.and(contract.clone()) {
                    Ok(()) => self.perform(request, action),
                    Err(error) => Err(error),
                };
                if contract.is_ok() {
                    self.note_misuse(request, result.as_ref().err());
                }
                result
            }
            Some(_) => Err(ApiError::new("InternalError", "The call was not taken.")),
        };
        if !mutating {
            self.reads += 1;
        }
        if let Some(call) = self.records.calls.get_mut(place) {
            call.error = result.as_ref().err().map(|error| error.code.clone());
        }
        self.settle();
        let answer = match &result {
            Ok(xml) => HttpAnswer::success(&request.action, xml, &request_id),
            Err(error) => error.answer(&request_id),
        };
        match fault {
            Some(fault) => answer.spoiled(&fault.wrong, &request_id),
            None => answer,
        }
    }

    /// Notes an error that a correct client never provokes.
    fn note_misuse(&mut self, request: &Request, error: Option<&ApiError>) {
        if let Some(error) = error.filter(|error| error.misuse) {
            let text = format!("{}: {}: {}", request.action, error.code, error.message);
            self.records.violations.push(text);
        }
    }

    /// Throttling, credentials and permissions.
    fn admit(&mut self, request: &Request, mutating: bool, at: Duration) -> Result<(), ApiError> {
        let limited = || ApiError::new("RequestLimitExceeded", "Request limit exceeded.");
        if self.throttled > 0 {
            self.throttled -= 1;
            return Err(limited());
        }
        if let Some(buckets) = self.settings.buckets {
            let keys = request.parameters.iter().map(|(key, _)| key.as_str());
            let narrow = |key: &str| key != "DryRun" && key != "NextToken";
            let unfiltered = !keys.into_iter().any(narrow);
            let action = &request.action;
            if !self.levels.take(&buckets, action, mutating, unfiltered, at) {
                return Err(limited());
            }
        }
        self.settings.identity.check()?;
        if self.settings.denied.contains(&request.action) {
            return Err(self.denial(&request.action));
        }
        Ok(())
    }

    /// The error of a missing permission.
    fn denial(&self, action: &str) -> ApiError {
        let settings = &self.settings;
        let text = format!(
            "You are not authorized to perform this operation. User: \
             arn:{}:sts::{}:assumed-role/double/session is not authorized to perform: \
             ec2:{action} on resource: arn:{}:ec2:{}:{}:* because no identity-based policy allows \
             the ec2:{action} action",
            settings.partition,
            settings.account,
            settings.partition,
            settings.region,
            settings.account,
        );
        ApiError::new("UnauthorizedOperation", text)
    }

    /// Runs an action.
    fn perform(&mut self, request: &Request, action: Option<Action>) -> Result<Xml, ApiError> {
        let old = self.snapshots.front().filter(|_| self.settings.lag > 0);
        let seen = old.unwrap_or(&self.state);
        for (_, value) in &request.parameters {
            if self.state.lists.contains_key(value) && !seen.lists.contains_key(value) {
                return Err(actions::no_list(value));
            }
        }
        let dry_run = request.flag("DryRun");
        let permitted = || {
            let text = "Request would have succeeded, but DryRun flag is set.";
            ApiError::new("DryRunOperation", text)
        };
        match action {
            Some(Action::Read(read)) => {
                if dry_run {
                    return Err(permitted());
                }
                let mut xml = read(seen, &self.settings, request)?;
                if self.settings.unknown_elements {
                    xml.add_unknown();
                }
                Ok(xml)
            }
            Some(Action::Write(write)) => {
                if dry_run {
                    actions::named_objects(&self.state, request)?;
                    return Err(permitted());
                }
                let mut next = self.state.clone();
                let due = self.reads + self.settings.progress_reads;
                let xml = write(&mut next, &self.settings, due, request)?;
                self.state = next;
                self.changed = true;
                Ok(xml)
            }
            None => Err(ApiError::new("InvalidAction", "No such action.")),
        }
    }
}

/// The id of a call's answer, the same in each run.
fn request_id(index: usize) -> String {
    format!("5f1d0000-0000-4000-8000-{index:012x}")
}
