//! probe
use hypatia_models::*;
use std::io::Write;
fn main() {
    let t = std::time::Instant::now();
    let d = data::Dataset::generate(1, data::SetSizes::default());
    eprintln!("{:?}", t.elapsed());
    let tiling = picture::Tiling {
        image_shape: (28, 28),
        tile_shape: (20, 30),
        tile_spacing: (1, 1),
        scale_rows_to_unit_interval: false,
    };
    picture::tile_raster_images(d.train.pixels(), &tiling)
        .unwrap()
        .write_png("/tmp/digits.png".as_ref())
        .unwrap();
    for (n, s) in [("train", &d.train), ("valid", &d.valid), ("test", &d.test)] {
        let b: Vec<u8> = s.pixels().iter().map(|p| (p * 256.0) as u8).collect();
        std::fs::File::create(format!("/tmp/dg_{n}.x")).unwrap().write_all(&b).unwrap();
        let b: Vec<u8> = s.labels().iter().map(|p| *p as u8).collect();
        std::fs::File::create(format!("/tmp/dg_{n}.y")).unwrap().write_all(&b).unwrap();
    }
    let ep: Vec<log::Epoch> = (1..=73u64)
        .map(|n| {
            let d = 1.0 / (1.0 + 0.3 * n as f64);
            log::Epoch {
                epoch: n,
                train_cost: Some(0.26 + 1.3 * d),
                valid_error: Some(0.07 + 0.2 * d + 0.002 * ((n * 7919 % 13) as f64 / 13.0)),
                test_error: (n % 3 != 0).then_some(0.072 + 0.2 * d),
                seconds: 1.0,
            }
        })
        .collect();
    plot::write_learning_curve("/tmp/curve.png".as_ref(), "logreg on MNIST", &ep, Some(70)).unwrap();
    let ep: Vec<log::Epoch> =
        ep.into_iter().take(15).map(|e| log::Epoch { valid_error: None, test_error: None, ..e }).collect();
    plot::write_learning_curve("/tmp/curve2.png".as_ref(), "rbm on generated digits, seed 1", &ep, None)
        .unwrap();
    let t = std::time::Instant::now();
    let r = data::Dataset::read("/work/shared/data/mnist/mnist.pkl.gz".as_ref()).unwrap();
    eprintln!("pickle {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let i = data::Dataset::read("/work/shared/data/mnist".as_ref()).unwrap();
    eprintln!("idx {:?} {}", t.elapsed(), r.train == i.train && r.valid == i.valid && r.test == i.test);
}
