//! Passes that stop before each call, so that a test decides whose call EC2 takes next.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use cloud::Cloud;
use trailblazer::vpc::ec2::{HttpAnswer, Transport, TransportError};
use trailblazer::vpc::pass::{PassMemory, pass};
use trailblazer::vpc::report::VpcReport;

use crate::world::{InProcess, Writer};

/// The place before each call of one pass.
#[derive(Default)]
struct Gate(Mutex<Position>);

#[derive(Default, PartialEq)]
enum Position {
    #[default]
    Between,
    Waiting,
    Granted,
}

impl Gate {
    fn set(&self, position: Position) {
        *self.0.lock().unwrap() = position;
    }

    fn is(&self, position: &Position) -> bool {
        *self.0.lock().unwrap() == *position
    }

    async fn wait(&self) {
        self.set(Position::Waiting);
        // The scheduler polls again after a grant, so that no waker is needed.
        poll_fn(|_| {
            if self.is(&Position::Granted) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.set(Position::Between);
    }
}

/// The double behind a gate.
struct Gated {
    double: InProcess,
    gate: Arc<Gate>,
}

impl Transport for Gated {
    async fn send(&self, body: String) -> Result<HttpAnswer, TransportError> {
        self.gate.wait().await;
        self.double.send(body).await
    }
}

type Running = Pin<Box<dyn Future<Output = (VpcReport, PassMemory)>>>;

/// A pass on its way. A dropped one is a writer that died.
pub struct Paced {
    future: Running,
    gate: Arc<Gate>,
}

/// The stop of a pass.
pub enum Stop {
    /// Before a call.
    Call,
    End(Box<VpcReport>, Box<PassMemory>),
}

impl Paced {
    /// A pass of a writer, before its first step.
    pub fn new(writer: &Writer, cloud: &Cloud, mut memory: PassMemory) -> Paced {
        let gate = Arc::new(Gate::default());
        let ec2 = writer.ec2_over(Gated {
            double: InProcess(cloud.clone()),
            gate: Arc::clone(&gate),
        });
        let (config, options) = (writer.config.clone(), writer.options.clone());
        memory.waits = writer.memory.waits;
        let future = Box::pin(async move {
            let report = pass(&ec2, &config, &options, &mut memory).await;
            (report, memory)
        });
        Paced { future, gate }
    }

    /// Lets the pass send the call before which it stands, and runs the pass to the next stop.
    pub async fn go_on(&mut self) -> Stop {
        if self.gate.is(&Position::Waiting) {
            self.gate.set(Position::Granted);
        }
        poll_fn(|context| match self.future.as_mut().poll(context) {
            Poll::Ready((report, memory)) => {
                Poll::Ready(Stop::End(Box::new(report), Box::new(memory)))
            }
            Poll::Pending if self.gate.is(&Position::Waiting) => Poll::Ready(Stop::Call),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
