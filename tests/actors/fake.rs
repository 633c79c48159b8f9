//! A neighbour that keeps what it was told and answers as the test says.

use actix::prelude::*;
use std::sync::{Arc, Mutex};

/// What a neighbour was told, in order.
pub type Told<M> = Arc<Mutex<Vec<M>>>;

type Answer<M> = Box<dyn FnMut(&M) -> ResponseFuture<<M as Message>::Result>>;

/// Handles one message.
pub struct Fake<M: Message> {
    told: Told<M>,
    answer: Answer<M>,
}

impl<M> Actor for Fake<M>
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send,
{
    type Context = Context<Self>;
}

impl<M> Handler<M> for Fake<M>
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send + 'static,
{
    type Result = ResponseFuture<M::Result>;

    fn handle(&mut self, message: M, _: &mut Self::Context) -> Self::Result {
        let answer = (self.answer)(&message);
        self.told.lock().unwrap().push(message);
        answer
    }
}

/// A neighbour that answers with what the function gives, after as long as the future takes.
pub fn slow<M>(answer: impl FnMut(&M) -> ResponseFuture<M::Result> + 'static) -> (Recipient<M>, Told<M>)
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send + 'static,
{
    let told = Told::default();
    let fake = Fake { told: Arc::clone(&told), answer: Box::new(answer) }.start();
    (fake.recipient(), told)
}

/// A neighbour that answers at once.
pub fn quick<M>(mut answer: impl FnMut(&M) -> M::Result + 'static) -> (Recipient<M>, Told<M>)
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send + 'static,
{
    slow(move |message| {
        let answer = answer(message);
        Box::pin(async move { answer })
    })
}

/// A neighbour that never answers.
pub fn silent<M>() -> Recipient<M>
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send + 'static,
{
    slow(|_: &M| Box::pin(std::future::pending())).0
}

/// A neighbour that is gone.
pub fn gone<M>() -> Recipient<M>
where
    M: Message + Unpin + Send + 'static,
    M::Result: Send + 'static,
{
    struct Ending;
    impl Actor for Ending {
        type Context = Context<Self>;
        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.terminate();
        }
    }
    impl<M> Handler<M> for Ending
    where
        M: Message + Send + 'static,
        M::Result: Send + 'static,
    {
        type Result = ResponseFuture<M::Result>;
        fn handle(&mut self, _: M, _: &mut Self::Context) -> Self::Result {
            Box::pin(std::future::pending())
        }
    }
    Ending.start().recipient()
}
