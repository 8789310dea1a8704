//! A web server on lanes, under load, while its connections and its acceptors are killed.
//!
//! Given an address it serves there until it is stopped, for a load generator of one's own choice.

mod server;

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use backplane_pool::{Lanes, Pool};

const CLIENTS: usize = 8;
/// Answers that each client wants.
const WANTED: usize = 2000;

/// Asks until it is cut off, or has all that it wants.
fn ask(address: SocketAddr, client: usize, answered: &mut usize, tell: &impl Fn()) -> io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address)?);
    while *answered < WANTED {
        let path = format!("/{client}/{answered}");
        stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes())?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut body = vec![0; path.len()];
        stream.read_exact(&mut body)?;
        assert_eq!(body, path.as_bytes(), "somebody else's answer");
        *answered += 1;
        tell();
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder().lanes(Lanes::new()).build()?;
    println!("{} lanes, with {:?}", pool.lanes().len(), pool.lanes()[0].driver());
    let (address, all) = (env::args().nth(1), server::All::default());
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let here = listener.local_addr()?;
    let keeper = pool.spawn(server::keep(listener, pool.handle(), all.clone()));
    if address.is_some() {
        println!("serving at http://{here}/");
        return Ok(pool.block_on(keeper)??);
    }

    let (answers, connects, killed) =
        (AtomicUsize::new(0), AtomicUsize::new(0), [0, 0].map(AtomicUsize::new));
    // Every hundredth answer costs a connection its life, and every thousandth an acceptor.
    let tell = || {
        let answers = answers.fetch_add(1, Ordering::Relaxed) + 1;
        if answers.is_multiple_of(100) {
            let accepts = answers.is_multiple_of(1000);
            let mut all = all.lock().expect("nobody panics with it");
            let found = all.iter().position(|running| running.accepts == accepts);
            if let Some(found) = found.map(|found| all.remove(found)) {
                found.kill();
                killed[usize::from(accepts)].fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let begin = Instant::now();
    thread::scope(|threads| {
        for client in 0..CLIENTS {
            let (tell, connects) = (&tell, &connects);
            threads.spawn(move || {
                let mut answered = 0;
                while answered < WANTED {
                    connects.fetch_add(1, Ordering::Relaxed);
                    // Cut off: once more, from where it was.
                    let _ = ask(here, client, &mut answered, tell);
                }
            });
        }
    });
    let [connections, acceptors] = killed.map(AtomicUsize::into_inner);
    let (answers, connects) = (answers.into_inner(), connects.into_inner());
    println!("{answers} answers, each the right one, in {:?}", begin.elapsed());
    println!("{connections} connections and {acceptors} acceptors were killed; {connects} were opened");
    assert_eq!(answers, CLIENTS * WANTED);
    assert!(connections > 0 && acceptors > 0 && connects > CLIENTS);
    Ok(())
}
