//! An executor that asks the kernel for completions, one thread, and futures that cannot leave it. Told twice: with
//! io_uring where the kernel allows it, and with polling.

#[path = "told.rs"]
mod told;

use std::{future::Future, rc::Rc};

use compio::{
    driver::{DriverType, ProactorBuilder},
    runtime::{JoinHandle, RuntimeBuilder},
};

type Luggage = Rc<()>;
type Task = JoinHandle<()>;

fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    compio::runtime::spawn(future)
}

fn tell<F: Future<Output = ()>>(story: impl Fn() -> F) {
    let (what_there_is, mut polling) = (ProactorBuilder::new(), ProactorBuilder::new());
    polling.driver_type(DriverType::Poll);
    for driver in [what_there_is, polling] {
        let compio = RuntimeBuilder::new().with_proactor(driver).build();
        compio.expect("compio starts").block_on(story());
    }
}
