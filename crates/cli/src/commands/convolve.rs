//! `hypatia convolve IMAGE`: the first example of the tutorials' chapter on convolutional networks, two random filters over a
//! photograph.
//!
//! With the seed of the tutorial the filters are its: 9 x 9 over three channels, uniform within one over the root of their
//! elements, and biases uniform within a half. What comes out, through the logistic function, are detectors of edges.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use hypatia::{Array, Conv, Tensor, function, shared, tensor4};
use hypatia_datasets::numpy::RandomState;

use super::{Failure, print};
use crate::picture::{Colours, Picture};

/// Rows and columns of a filter.
const SIDE: usize = 9;
/// Red, green, blue.
const CHANNELS: usize = 3;
/// How many filters.
const FILTERS: usize = 2;

pub(super) fn command() -> Command {
    Command::new("convolve")
        .about("Moves two random filters of 9x9 over a photograph and writes what comes out as a picture")
        .arg(
            Arg::new("image")
                .value_name("IMAGE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("A JPEG or PNG file of at least 9x9 pixels"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("PATH")
                .default_value("convolved.png")
                .value_parser(value_parser!(PathBuf))
                .help("The picture: both results side by side"),
        )
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("N")
                .default_value("23455")
                .value_parser(value_parser!(u32))
                .help("What the filters are drawn from"),
        )
}

pub(super) fn execute(matches: &ArgMatches) -> Result<u8, Failure> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).ok_or_else(|| Failure::usage("expected a path"));
    let seed = matches.get_one::<u32>("seed").copied().ok_or_else(|| Failure::usage("expected a seed"))?;
    let (from, to) = (path("image")?, path("out")?);
    let photograph = read(from)?;
    let results = convolved(&photograph, seed)?;
    beside_each_other(&results)?.write_png(to).map_err(Failure::failed)?;
    print(&format!("{}\n", to.display()))?;
    Ok(0)
}

/// A photograph as `f32[1, 3, rows, columns]`, from 0 to just less than 1.
fn read(path: &Path) -> Result<Array, Failure> {
    let fault = |what: &dyn std::fmt::Display| Failure::failed(format!("{}: {what}", path.display()));
    let bytes = fs::read(path).map_err(|error| fault(&error))?;
    let Picture { height, width, colours, bytes } =
        if bytes.starts_with(b"\x89PNG") { from_png(&bytes) } else { from_jpeg(&bytes) }
            .map_err(|what| fault(&what))?;
    if height < SIDE || width < SIDE {
        return Err(fault(&format!("expected at least {SIDE} x {SIDE} pixels, found {height} x {width}")));
    }
    let pixels = height * width;
    let of_pixel = bytes.len() / pixels;
    let value = |channel: usize, pixel: usize| {
        let channel = if colours == Colours::Grey { 0 } else { channel };
        f32::from(bytes[pixel * of_pixel + channel]) / 256.0
    };
    let values: Vec<f32> = (0..CHANNELS)
        .flat_map(|channel| (0..pixels).map(move |pixel| (channel, pixel)))
        .map(|(c, p)| value(c, p))
        .collect();
    Array::new(&[1, CHANNELS, height, width], &values).map_err(Failure::failed)
}

fn from_png(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader.output_buffer_size().ok_or("an image of more bytes than memory")?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(|error| error.to_string())?;
    bytes.truncate(frame.buffer_size());
    let colours = match frame.color_type {
        png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha => Colours::Grey,
        png::ColorType::Rgb | png::ColorType::Indexed => Colours::Rgb,
        png::ColorType::Rgba => Colours::Rgba,
    };
    Ok(Picture { height: frame.height as usize, width: frame.width as usize, colours, bytes })
}

fn from_jpeg(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = jpeg_decoder::Decoder::new(Cursor::new(bytes));
    let pixels =
        decoder.decode().map_err(|error| format!("expected a JPEG or PNG file, found another: {error}"))?;
    let info = decoder.info().ok_or("a JPEG file without extents")?;
    let colours = match info.pixel_format {
        jpeg_decoder::PixelFormat::L8 => Colours::Grey,
        jpeg_decoder::PixelFormat::RGB24 => Colours::Rgb,
        other @ (jpeg_decoder::PixelFormat::L16 | jpeg_decoder::PixelFormat::CMYK32) => {
            return Err(format!("expected grey or red, green and blue of 8 bits, found {other:?}"));
        }
    };
    Ok(Picture { height: info.height.into(), width: info.width.into(), colours, bytes: pixels })
}

/// What each filter gives, `f32[1, FILTERS, rows, columns]`.
fn convolved(photograph: &Array, seed: u32) -> Result<Array, Failure> {
    let mut rng = RandomState::new(seed);
    let elements = CHANNELS * SIDE * SIDE;
    let bound = 1.0 / (elements as f64).sqrt();
    let mut draw = |bound: f64, count: usize| -> Vec<f32> {
        rng.uniform(-bound, bound, count).into_iter().map(|x| x as f32).collect()
    };
    let filters = draw(bound, FILTERS * elements);
    let biases = draw(0.5, FILTERS);
    let w = shared("W", Array::new(&[FILTERS, CHANNELS, SIDE, SIDE], &filters));
    let b = shared("b", Array::vector(&biases));
    let x = tensor4::<f32>("input");
    let biases = Tensor::from(&b).dimshuffle(&[None, Some(0), None, None]);
    let output = (x.conv2d(&w, Conv::valid()) + biases).sigmoid();
    let mut function = function(&[&x], &[&output], &[]).map_err(Failure::failed)?;
    let results = function.call(&[photograph]).map_err(Failure::failed)?;
    Ok(results.array(0).clone())
}

/// The results of all filters side by side in grey, black for 0 and white for 1.
fn beside_each_other(results: &Array) -> Result<Picture, Failure> {
    let [_, filters, height, width] = *results.shape() else {
        return Err(Failure::failed(format!("expected images, found {:?}", results.shape())));
    };
    let values: &[f32] = results.as_slice().ok_or_else(|| Failure::failed("expected f32"))?;
    let at = |row: usize, column: usize| values[(column / width * height + row) * width + column % width];
    let bytes = (0..height).flat_map(|row| (0..filters * width).map(move |column| (row, column)));
    let bytes = bytes.map(|(row, column)| (at(row, column) * 255.0).round() as u8).collect();
    Ok(Picture { height, width: filters * width, colours: Colours::Grey, bytes })
}
