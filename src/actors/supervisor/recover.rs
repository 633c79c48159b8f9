//! What the store keeps, for the local control socket: asked by way of the Supervisor, which alone
//! knows the store's present life.

use super::Supervisor;
use crate::actors::messages::{InspectState, Recover};
use crate::store::{Inspection, Recovered, STATE_FILE, StoreError};
use actix::prelude::*;

impl Handler<Recover> for Supervisor {
    type Result = ResponseFuture<Result<Recovered, StoreError>>;

    fn handle(&mut self, question: Recover, _: &mut Self::Context) -> Self::Result {
        let store = self.doors.neighbourhood().map(|doors| doors.store.recover);
        Box::pin(async move {
            match store {
                Some(store) => store.send(question).await.unwrap_or_else(|_| Err(restarting())),
                None => Err(restarting()),
            }
        })
    }
}

impl Handler<InspectState> for Supervisor {
    type Result = ResponseFuture<Result<Inspection, StoreError>>;

    fn handle(&mut self, question: InspectState, _: &mut Self::Context) -> Self::Result {
        let store = self.doors.neighbourhood().map(|doors| doors.store.inspect);
        Box::pin(async move {
            match store {
                Some(store) => store.send(question).await.unwrap_or_else(|_| Err(restarting())),
                None => Err(restarting()),
            }
        })
    }
}

fn restarting() -> StoreError {
    StoreError::Io { path: STATE_FILE.into(), cause: "the state store is restarting".to_owned() }
}
