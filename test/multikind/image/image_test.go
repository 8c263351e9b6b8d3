package image

import (
	"os"
	"path/filepath"
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

func TestStaticImagesAreReproducibleAndReplaceOldOnes(t *testing.T) {
	folder := t.TempDir()
	program := filepath.Join(folder, "pause")
	build := func(cache, content string) (Archive, []byte) {
		t.Helper()
		if err := os.WriteFile(program, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		archive, err := Static(filepath.Join(folder, cache), "tripod.dev/pause:dev", program)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := os.ReadFile(archive.Path)
		if err != nil {
			t.Fatal(err)
		}
		return archive, bytes
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
