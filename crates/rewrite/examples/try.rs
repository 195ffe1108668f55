//! scratch
use hypatia_graph::text::{formula, parse_formula};
fn main() {
    for text in std::env::args().skip(1) {
        let f = match parse_formula(&text) { Ok(f) => f, Err(e) => { println!("{e}"); continue } };
        let g = f.graph().unwrap();
        let (s, r) = hypatia_rewrite::simplify(&g, hypatia_rewrite::Numerics::Real);
        println!("{text}\n   =>  {}", formula(&s, s.outputs[0]));
        if std::env::var("E").is_ok() { print!("{}", hypatia_rewrite::explain(&g, hypatia_rewrite::Numerics::Real)); }
        if std::env::var("V").is_ok() { println!("{s}\n{r}"); }
    }
}
