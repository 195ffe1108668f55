"""Machine code of instructions by the GNU assembler, for the encoder's test in crates/codegen/src/cpu/avx512/encode.rs.

Run: python3 tests/reference/avx512_encodings.py   (needs GNU binutils for x86-64)
"""

import pathlib
import re
import subprocess
import tempfile

INSTRUCTIONS = """\
vaddps zmm17, zmm3, zmm30
vfmadd213ps zmm9, zmm31, dword ptr [r12]{1to16}
{disp32} vmovups zmm20{k1}{z}, [r13+rdx*4+64]
vmovups [rsp], zmm8
{disp32} vmovups [rsp+1088], zmm31
vcmpps k5, zmm16, zmm1, 30
vpcmpud k2, zmm2, zmm19, 5
vblendmps zmm4{k6}, zmm28, zmm5
vpsrad zmm22, zmm11, 23
vrndscaleps zmm1, zmm18, 9
vbroadcastss zmm6{k7}{z}, [rdi]
vpbroadcastd zmm24, eax
vgatherdps zmm3{k2}, [r9+zmm25*4]
{disp32} vscatterdps [rax+zmm14*4+8]{k3}, zmm29
vpmovsqd ymm13, zmm26
vinserti64x4 zmm2, zmm2, ymm21, 1
vextracti32x4 xmm7, ymm27, 1
vmovd eax, xmm23
vptestmb k4, xmm5, xmm5
vmovdqu8 xmm12{k3}{z}, [rsi]
vpshufd xmm15, xmm31, 0x4e
{vex3} kandnw k3, k4, k7
{vex3} knotw k2, k6
kshiftrw k5, k1, 8
{vex3} kmovw k1, eax
{vex3} kmovw eax, k6
{vex3} kmovw [rsp], k2
{vex3} kortestw k3, k3
bzhi eax, eax, ecx
{disp32} mov r11, [rsp+8]
mov [r12], rsi
{disp32} mov qword ptr [rcx+8], 5
add r15, -6400
{disp32} add qword ptr [rsp+32], 4000
imul rcx, r10, 1200
{disp32} imul rax, [rsp+24], -4000
movsxd rax, dword ptr [rsp+rax*4]
movzx rax, byte ptr [r8]
lea rcx, [rcx+rdx*8+128]
{disp32} cmp rdx, [rsp+24]
{load} sub rcx, rdx
and rsp, -6400
neg rax
tzcnt rax, rax
push r14
rex pop rbx
"""

with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder, "a.s")
    source.write_text(".intel_syntax noprefix\n" + INSTRUCTIONS)
    subprocess.run(["as", "-o", f"{folder}/a.o", source], check=True)
    dump = ["objdump", "-d", "-w", "--insn-width=16", f"{folder}/a.o"]
    listing = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
rows = re.findall(r"^\s+[0-9a-f]+:\t([0-9a-f ]+?)\s*\t(.*)$", listing, re.M)
for (code, _), text in zip(rows, INSTRUCTIONS.splitlines(), strict=True):
    print(f'("{text}", "{code}"),')
