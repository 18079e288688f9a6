//! The way to the agent from other threads: questions about what it holds, and a bootstrap that was read again. Owns the
//! waiting; the answers are the agent's.

use std::{fmt, sync::mpsc as std_mpsc};

use tokio::sync::mpsc;

use super::{Input, State};
use crate::{problem::Problem, translate::Translated};

/// Asks the agent from anywhere: `Send + Sync`, cheap to clone.
#[derive(Clone)]
pub struct Door(pub(super) mpsc::UnboundedSender<Input>);

/// What is done on the agent's thread for somebody else.
pub(super) enum Errand {
    /// A look at what there is.
    Inspect(Box<dyn FnOnce(&State) + Send>),
    /// The static part was read again; the answer is sent back.
    Reload(Box<Translated>, std_mpsc::Sender<Result<(), Vec<Problem>>>),
    /// The proxy drains or ends: no more streams, no more publishes.
    Stop,
}

impl Door {
    /// Runs `look` on the agent's thread, between two updates, and waits for what it gives; so it should be quick, and copy
    /// what takes time to write down. `None` if the agent has ended.
    ///
    /// For threads that may block, never for a lane or for the agent itself.
    pub fn inspect<R: Send + 'static>(&self, look: impl FnOnce(&State) -> R + Send + 'static) -> Option<R> {
        let (answer, answered) = std_mpsc::channel();
        let errand = Errand::Inspect(Box::new(move |state| {
            // Whoever asked may have gone.
            let _ = answer.send(look(state));
        }));
        self.0.send(Input::Errand(errand)).ok()?;
        answered.recv().ok()
    }

    /// Replaces the static part of the configuration, and waits until it is in force.
    ///
    /// # Errors
    /// What cannot be changed while the proxy runs, what is wrong, or that the agent has ended. Nothing has changed then.
    pub fn reload(&self, next: Translated) -> Result<(), Vec<Problem>> {
        let gone = || vec![Problem::new("", "the proxy has ended")];
        let (answer, answered) = std_mpsc::channel();
        let sent = self.0.send(Input::Errand(Errand::Reload(Box::new(next), answer)));
        sent.map_err(|_| gone())?;
        answered.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Ends the agent: streams are closed, and nothing is published any more. What serves goes on serving.
    pub fn stop(&self) {
        // It may have ended already.
        let _ = self.0.send(Input::Errand(Errand::Stop));
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}
