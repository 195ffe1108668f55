//! What must hold of a plan, since loading and running rely on it; checked in the order of this list.
//!
//! 1. A function is that of a step: of a loop kernel, or of a scan with as many steps, of the same kinds, as are
//!    carried out inline. It calls only functions before it, each of the kernel called.
//! 2. The steps of a program, or of a scan's body, are those of the plan, in kind and number. A loop step runs the function of
//!    an equal kernel.
//! 3. A product is planned for its kernel, with a packed right side where the plan has one: packed by a scan around it, or
//!    of a constant. No matrix is packed twice.
//!    A convolution is planned for its kernel.
//! 4. The second step of a pair follows the first.
//! 5. The parameters of a step have slots of their own, and a scan reads and sets no others than its own and its body's. Every
//!    slot is set by one thing: a constant, a place of the program, or the scan around it.

use hypatia_graph::{Broken, broken};
use hypatia_kernels::product::ProductShape;

use super::{
    Action, Function, FunctionId, Inline, PackedId, Plan, Planned, Product, Slot, convolution_shape,
    product_shape,
};
use crate::kernel::{Kernel, LoopKernel, Program, ScanKernel, Step};

impl Plan {
    /// The first violated invariant.
    pub(super) fn verify(&self) -> Result<(), Broken> {
        let steps = self.program.all_steps().into_iter().map(|(_, step)| step).collect();
        let mut check = Check {
            plan: self,
            steps,
            next: 0,
            set: vec![false; self.slots],
            packed: vec![Packed::Never; self.packed.len()],
        };
        for (number, function) in self.functions.iter().enumerate() {
            let (Function::Kernel(step) | Function::Scan(step, _)) = function;
            match (function, check.kernel(*step)?) {
                (Function::Kernel(_), Kernel::Loop(_)) => {}
                (Function::Scan(_, body), Kernel::Scan(kernel)) => check.inline(kernel, body, number)?,
                (_, kernel) => return Err(broken!("a kernel that f{number} can be of", kernel)),
            }
        }
        for (id, ..) in &self.packed_constants {
            check.pack(*id)?;
        }
        let constants = self.constants.iter().map(|(slot, _)| *slot);
        constants.chain(self.places.iter().map(|(slot, _)| *slot)).try_for_each(|slot| check.set(slot))?;
        check.program(&self.program, &self.steps)?;
        match check.set.iter().position(|set| !set) {
            Some(slot) => Err(broken!("something that sets pointer {slot}")),
            None => Ok(()),
        }
    }
}

/// When a matrix is packed.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Packed {
    Never,
    /// Around the steps that are being looked at.
    Here,
    /// In a scan that has ended.
    Elsewhere,
}

struct Check<'p> {
    plan: &'p Plan,
    /// All steps by their numbers.
    steps: Vec<&'p Step>,
    /// The slot of the next step.
    next: Slot,
    set: Vec<bool>,
    packed: Vec<Packed>,
}

impl<'p> Check<'p> {
    fn kernel(&self, step: usize) -> Result<&'p Kernel, Broken> {
        self.steps.get(step).map(|step| &step.kernel).ok_or_else(|| broken!("a step {step}"))
    }

    fn set(&mut self, slot: Slot) -> Result<(), Broken> {
        match self.set.get_mut(slot) {
            Some(set) if !*set => {
                *set = true;
                Ok(())
            }
            Some(_) => Err(broken!("one thing that sets pointer {slot}", "two")),
            None => Err(broken!("a pointer {slot}", self.plan.slots)),
        }
    }

    fn pack(&mut self, id: PackedId) -> Result<(), Broken> {
        match self.packed.get_mut(id.0) {
            Some(packed @ Packed::Never) => {
                *packed = Packed::Here;
                Ok(())
            }
            Some(_) => Err(broken!("{id} packed once", "twice")),
            None => Err(broken!("a matrix {id}")),
        }
    }

    /// Whether a function computes a kernel, and comes before the one of that number.
    fn computes(&self, id: FunctionId, kernel: &LoopKernel, before: usize) -> Result<(), Broken> {
        let step = match self.plan.functions.get(id.0) {
            Some(Function::Kernel(step)) if id.0 < before => *step,
            _ => return Err(broken!("a function {id} of a kernel, before f{before}")),
        };
        match self.kernel(step)? {
            Kernel::Loop(own) if own == kernel => Ok(()),
            other => Err(broken!("{id} to be of the kernel\n{kernel}", other)),
        }
    }

    fn inline(&self, kernel: &ScanKernel, body: &[Inline], function: usize) -> Result<(), Broken> {
        let steps = &kernel.body.steps;
        if steps.len() != body.len() {
            return Err(broken!("all steps of a scan in f{function}", body.len()));
        }
        for (step, inline) in steps.iter().zip(body) {
            match (&step.kernel, inline) {
                (Kernel::Loop(kernel), Inline::Call(id)) => self.computes(*id, kernel, function)?,
                (Kernel::Loop(_), Inline::Kernel { .. }) => {}
                (Kernel::Product(kernel), Inline::Product { lanes }) if *lanes > 0 && kernel.k > 0 => {}
                (Kernel::Scan(kernel), Inline::Scan(body)) => self.inline(kernel, body, function)?,
                (kernel, _) => return Err(broken!("a kernel that f{function} carries out", kernel)),
            }
        }
        Ok(())
    }

    fn program(&mut self, program: &Program, planned: &[Planned]) -> Result<(), Broken> {
        if program.steps.len() != planned.len() {
            return Err(broken!("all steps of a program", planned.len()));
        }
        for (index, (step, Planned { number, slots, action })) in
            program.steps.iter().zip(planned).enumerate()
        {
            let follows_first = index > 0 && matches!(planned[index - 1].action, Action::Pair { .. });
            if !std::ptr::eq(*self.steps.get(*number).ok_or_else(|| broken!("a step {number}"))?, step)
                || matches!(action, Action::InPair) != follows_first
            {
                return Err(broken!("the step after the one before", number));
            }
            if *slots != self.next {
                return Err(broken!("the pointers of step {number} after those before", slots));
            }
            self.next += step.arguments.len();
            match (&step.kernel, action) {
                (Kernel::Loop(kernel), Action::Loop { function, .. }) => {
                    self.computes(*function, kernel, usize::MAX)?;
                }
                (Kernel::Product(_), Action::Product(product)) => self.product(product, &planned[index])?,
                (Kernel::Product(_), Action::Pair { products, .. }) => {
                    let both =
                        planned.get(index..index + 2).ok_or_else(|| broken!("the second of a pair"))?;
                    products.iter().zip(both).try_for_each(|(product, step)| self.product(product, step))?;
                }
                (Kernel::Convolution(kernel), Action::Convolution { plan, .. })
                    if *plan.shape() == convolution_shape(kernel) => {}
                (Kernel::Product(_), Action::InPair) | (Kernel::Random(_), Action::Random { .. }) => {}
                (Kernel::Scan(_), Action::Native { function, .. }) => {
                    match self.plan.functions.get(function.0) {
                        Some(Function::Scan(step, _)) if step == number => {}
                        _ => return Err(broken!("{function} to be the scan of step {number}")),
                    }
                }
                (Kernel::Scan(kernel), Action::Scan(scan)) => {
                    let own = *slots..slots + kernel.params.len();
                    scan.packings.iter().try_for_each(|(id, _)| self.pack(*id))?;
                    for (slot, _) in &scan.begins {
                        self.set(*slot)?;
                    }
                    let pointers = scan.begins.iter().chain(&scan.switches).map(|(_, target)| target);
                    let pointers = pointers.chain(scan.packings.iter().map(|(_, target)| target));
                    let mut used = pointers
                        .chain(&scan.until)
                        .map(|target| target.slot)
                        .chain(scan.made)
                        .chain(scan.rows.iter().map(|(rows, _)| *rows))
                        .chain(scan.kept.iter().flat_map(|(from, _, to)| [*from, *to]));
                    if let Some(slot) = used.find(|slot| !own.contains(slot)) {
                        return Err(broken!("a parameter of step {number}", slot));
                    }
                    let mut moved = scan
                        .switches
                        .iter()
                        .map(|(slot, _)| slot)
                        .chain(scan.moves.iter().map(|(slot, _)| slot));
                    if let Some(slot) = moved.find(|slot| scan.begins.iter().all(|(begun, _)| begun != *slot))
                    {
                        return Err(broken!("a pointer that the scan of step {number} sets", slot));
                    }
                    self.program(&kernel.body, &scan.body)?;
                    for (id, _) in &scan.packings {
                        self.packed[id.0] = Packed::Elsewhere;
                    }
                }
                (kernel, _) => return Err(broken!("a kernel that can be run as \"{action}\"", kernel)),
            }
        }
        Ok(())
    }

    fn product(&self, product: &Product, step: &Planned) -> Result<(), Broken> {
        let Product { number, slots, kernel, plan, packed } = product;
        if (*number, *slots) != (step.number, step.slots) {
            return Err(broken!("a product of step {number}", step.number));
        }
        if let Some(id) = packed
            && self.packed.get(id.0) != Some(&Packed::Here)
        {
            return Err(broken!("{id} packed around step {number}"));
        }
        let shape = ProductShape { b_packed: packed.is_some(), ..product_shape(kernel) };
        if *plan.shape() == shape {
            Ok(())
        } else {
            Err(broken!("a plan of the product of step {number}", plan))
        }
    }
}
