//! Signals, sent to a copy of this test program.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use hypatia_models::interrupt::{INTERRUPTED_STATUS, Interrupt};

/// Tells the copy that it is one, and what to do at the first signal.
const ROLE: &str = "HYPATIA_TEST_INTERRUPT_ROLE";

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

/// Starts a copy that runs `test` in the role, and waits until it catches signals.
fn start(test: &str, role: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact", test])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains("waiting")));
    (child, lines)
}

/// What the copy does: waits for a signal, then ends or, as one that does not react, waits on.
fn wait_for_signal(role: &str) {
    let interrupt = Interrupt::install().unwrap();
    assert!(!interrupt.is_requested());
    println!("waiting");
    for _ in 0..3000 {
        if interrupt.is_requested() {
            println!("requested");
            std::io::stdout().flush().unwrap();
            if role == "ends" {
                return;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_first_signal_asks() {
    if let Ok(role) = std::env::var(ROLE) {
        return wait_for_signal(&role);
    }
    for signal in ["-INT", "-TERM"] {
        let (mut child, mut lines) = start("the_first_signal_asks", "ends");
        send(&child, signal);
        assert!(lines.any(|line| line.contains("requested")));
        assert!(child.wait().unwrap().success(), "{signal}");
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    if let Ok(role) = std::env::var(ROLE) {
        return wait_for_signal(&role);
    }
    let (mut child, mut lines) = start("the_second_signal_ends_at_once", "goes on");
    send(&child, "-INT");
    assert!(lines.any(|line| line.contains("requested")));
    send(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED_STATUS));
}

#[test]
fn a_flag_can_be_raised_without_a_signal() {
    let interrupt = Interrupt::default();
    let copy = interrupt.clone();
    interrupt.request();
    assert!(copy.is_requested());
}
