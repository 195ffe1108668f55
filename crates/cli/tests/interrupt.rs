//! Signals, sent to a copy of this test program.
//!
//! What the tests themselves were started to ignore (as in the background of a script, or under `nohup`) the copies
//! ignore too, so it is left out here.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use hypatia_cli::interrupt::{INTERRUPTED_STATUS, Interrupt, caught_signals};

/// Tells the copy that it is one, and what to do at the first signal.
const ROLE: &str = "HYPATIA_TEST_INTERRUPT_ROLE";

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Lets a command, to which the arguments of a copy are added, run `test` in the role; waits until signals are caught.
fn start(mut command: Command, test: &str, role: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = command
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

fn copy() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// A copy that is started to ignore a signal.
fn copy_ignoring(signal: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().unwrap());
    command
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
    for (signal, _) in caught_signals() {
        let (mut child, mut lines) = start(copy(), "the_first_signal_asks", "ends");
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
    for (signal, _) in caught_signals() {
        let (mut child, mut lines) = start(copy(), "the_second_signal_ends_at_once", "goes on");
        send(&child, signal);
        assert!(lines.any(|line| line.contains("requested")));
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED_STATUS), "{signal}");
    }
}

/// As under `nohup`, and in the background of a script.
#[test]
#[cfg(target_os = "linux")]
fn an_ignored_signal_stays_ignored_and_the_others_are_caught() {
    if let Ok(role) = std::env::var(ROLE) {
        return wait_for_signal(&role);
    }
    let signals = caught_signals();
    for (ignored, _) in &signals {
        let Some((caught, _)) = signals.iter().find(|(other, _)| other != ignored) else {
            eprintln!("skipped: the tests were started to ignore all signals but {ignored}");
            return;
        };
        let test = "an_ignored_signal_stays_ignored_and_the_others_are_caught";
        let (mut child, mut lines) = start(copy_ignoring(ignored), test, "goes on");
        // Ignored or not, it has come before the next one; if it raised the flag, the next one ends the program.
        send(&child, ignored);
        send(&child, caught);
        assert!(lines.any(|line| line.contains("requested")), "{ignored} was not ignored");
        send(&child, ignored);
        send(&child, caught);
        assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED_STATUS), "{ignored}, {caught}");
    }
}

#[test]
fn a_flag_can_be_raised_without_a_signal() {
    let interrupt = Interrupt::default();
    let copy = interrupt.clone();
    interrupt.request();
    assert!(copy.is_requested());
}
