// Package wall builds programs whose wall clock can be moved while they run, without
// the machine's: a build with an overlay of Go's package time adds to the wall clock,
// and to nothing else, what a small file says. As with a real jump the monotonic clock
// and all timers go on.
package wall

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed shift.go.txt
var shift []byte

// now is where package time reads the clock, and how it then adds.
const (
	now     = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n"
	shifted = "\tsec, nsec, mono := runtimeNow()\n\tsec += wallShift()\n\tif mono == 0 {\n"
)

// Build makes the program of a member with changes of sources, by path, and if moved is
// set with a wall clock that can be moved: everything is compiled anew for that, once.
// root is the top of the repository.
func Build(ctx context.Context, root, program string, changed map[string][]byte, moved bool) error {
	folder, err := os.MkdirTemp("", "wall-")
	if err != nil {
		return fmt.Errorf("make a folder for the changed sources: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	var clock map[string][]byte
	if moved {
		if clock, err = movable(ctx, root); err != nil {
			return err
		}
	}
	replace := map[string]string{}
	for _, sources := range []map[string][]byte{clock, changed} {
		for path, text := range sources {
			copied := filepath.Join(folder, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
			if err := os.WriteFile(copied, text, 0o600); err != nil {
				return fmt.Errorf("write a changed source: %w", err)
			}
			replace[path] = copied
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		return fmt.Errorf("encode the overlay: %w", err)
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return fmt.Errorf("write the overlay: %w", err)
	}
	command := exec.CommandContext(ctx, "go", "build", "-overlay", list, "-o", program, "./test/storemember")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w:\n%s", program, err, out)
	}
	return nil
}

// movable is package time with a wall clock that can be moved.
func movable(ctx context.Context, root string) (map[string][]byte, error) {
	command := exec.CommandContext(ctx, "go", "env", "GOROOT") // of the toolchain that the repository asks for
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("find Go's own sources: %w", err)
	}
	folder := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	text, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return nil, fmt.Errorf("read Go's package time: %w", err)
	}
	if n := bytes.Count(text, []byte(now)); n != 1 {
		return nil, fmt.Errorf("%s reads the clock in %d places as this program knows it, expected one: adapt package wall to this version of Go", filepath.Join(folder, "time.go"), n)
	}
	return map[string][]byte{
		filepath.Join(folder, "time.go"):  bytes.Replace(text, []byte(now), []byte(shifted), 1),
		filepath.Join(folder, "shift.go"): shift,
	}, nil
}
