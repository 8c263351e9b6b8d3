package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDependencies(t *testing.T) {
	for name, tc := range map[string]struct {
		out  string
		want []string
	}{
		"both kinds of dependency count": {
			"postgresql-15\n  PreDepends: init-system-helpers\n  Depends: libc6\n  Depends: libpq5\n",
			[]string{"init-system-helpers", "libc6", "libpq5"}},
		"of alternatives the first is taken": {
			"a\n |Depends: libssl3\n |Depends: libssl1.1\n  Depends: libssl1.0\n  Depends: zlib1g\n",
			[]string{"libssl3", "zlib1g"}},
		"virtual packages and their providers are skipped": {
			"tzdata\n |Depends: debconf\n  Depends: <debconf-2.0>\n    cdebconf\n    debconf\n",
			[]string{"debconf"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, dependencies(tc.out)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// program writes an ELF header with one program header of the given type, followed by
// content: enough of a program to be put into an image.
func program(t *testing.T, path string, kind elf.ProgType, content string) {
	t.Helper()
	var out bytes.Buffer
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	for _, part := range []any{header, elf.Prog64{Type: uint32(kind)}} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString(content)
	if err := os.WriteFile(path, out.Bytes(), 0o755); err != nil {
		t.Fatal(err)
	}
}

// A pod of such an image says only "no such file or directory".
func TestADynamicProgramIsRefused(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "tripod-agent")
	program(t, path, elf.PT_INTERP, "")
	_, err := Static(folder, "tripod.dev/agent:dev", path)
	if err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
}

func TestStaticImagesAreReproducibleAndReplaceOldOnes(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "pause")
	build := func(cache, content string) (Archive, []byte) {
		t.Helper()
		program(t, path, elf.PT_LOAD, content)
		archive, err := Static(filepath.Join(folder, cache), "tripod.dev/pause:dev", path)
		if err != nil {
			t.Fatal(err)
		}
		written, err := os.ReadFile(archive.Path)
		if err != nil {
			t.Fatal(err)
		}
		return archive, written
	}
	_, first := build("one", "x")
	_, again := build("two", "x")
	if string(first) != string(again) {
		t.Error("the same program gave two different images")
	}
	old, _ := build("one", "x")
	changed, _ := build("one", "y")
	if old.Key == changed.Key {
		t.Error("a changed program has the key of the old one: centers would keep the old image")
	}
	left, err := filepath.Glob(filepath.Join(folder, "one", "*"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{changed.Path}, left); diff != "" {
		t.Errorf("cache (-want +got):\n%s", diff)
	}
}
