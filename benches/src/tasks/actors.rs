//! The actor peers. A parent starts a child, is told when it has ended, and starts the next from there.

/// ractor: the child is spawned linked and stops itself when it has started; the parent reads the supervision event.
pub async fn ractor(times: u64) {
    ractor_side::run(times).await;
}

/// kameo: the child is linked, spawned, and ends because nobody refers to it; the parent reads that a link died.
pub async fn kameo(times: u64) {
    kameo_side::run(times).await;
}

mod ractor_side {
    use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

    struct Child;

    impl Actor for Child {
        type Msg = ();
        type State = ();
        type Arguments = ();

        async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
            Ok(())
        }

        async fn post_start(&self, me: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
            me.stop(None);
            Ok(())
        }
    }

    struct Parent;

    impl Actor for Parent {
        type Msg = ();
        /// How many children are still to be started.
        type State = u64;
        type Arguments = u64;

        async fn pre_start(&self, _: ActorRef<()>, times: u64) -> Result<u64, ActorProcessingErr> {
            Ok(times)
        }

        async fn post_start(&self, me: ActorRef<()>, left: &mut u64) -> Result<(), ActorProcessingErr> {
            next(me, left).await
        }

        async fn handle_supervisor_evt(
            &self,
            me: ActorRef<()>,
            event: SupervisionEvent,
            left: &mut u64,
        ) -> Result<(), ActorProcessingErr> {
            match event {
                SupervisionEvent::ActorTerminated(..) => next(me, left).await,
                SupervisionEvent::ActorFailed(_, error) => Err(error),
                _ => Ok(()),
            }
        }
    }

    async fn next(me: ActorRef<()>, left: &mut u64) -> Result<(), ActorProcessingErr> {
        if *left == 0 {
            me.stop(None);
            return Ok(());
        }
        *left -= 1;
        Child::spawn_linked(None, Child, (), me.get_cell()).await?;
        Ok(())
    }

    pub(super) async fn run(times: u64) {
        let (_, parent) = Parent::spawn(None, Parent, times).await.expect("the parent starts");
        parent.await.expect("the parent ends well");
    }
}

mod kameo_side {
    use std::convert::Infallible;
    use std::ops::ControlFlow;

    use kameo::actor::{Actor, ActorId, ActorRef, Spawn, WeakActorRef};
    use kameo::error::ActorStopReason;

    struct Child;

    impl Actor for Child {
        type Args = ();
        type Error = Infallible;

        async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
            Ok(Child)
        }
    }

    struct Parent {
        /// How many children are still to be started.
        left: u64,
    }

    impl Parent {
        async fn next(&mut self, me: &ActorRef<Self>) -> ControlFlow<ActorStopReason> {
            if self.left == 0 {
                return ControlFlow::Break(ActorStopReason::Normal);
            }
            self.left -= 1;
            let child = Child::prepare();
            child.actor_ref().link(me).await;
            child.spawn(());
            ControlFlow::Continue(())
        }
    }

    impl Actor for Parent {
        type Args = u64;
        type Error = Infallible;

        async fn on_start(times: u64, me: ActorRef<Self>) -> Result<Self, Infallible> {
            let mut parent = Parent { left: times };
            let _ = parent.next(&me).await;
            Ok(parent)
        }

        async fn on_link_died(
            &mut self,
            me: WeakActorRef<Self>,
            _: ActorId,
            _: ActorStopReason,
        ) -> Result<ControlFlow<ActorStopReason>, Infallible> {
            match me.upgrade() {
                Some(me) => Ok(self.next(&me).await),
                None => Ok(ControlFlow::Break(ActorStopReason::Normal)),
            }
        }
    }

    pub(super) async fn run(times: u64) {
        let parent = Parent::spawn(times);
        parent.wait_for_shutdown().await;
    }
}
