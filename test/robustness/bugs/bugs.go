// Package bugs plants bugs in the store, to see that the suite finds them. A bug is
// a change of one file that only a build with an overlay sees: no program that is
// delivered can have it.
package bugs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Bug is a change that makes the store break a promise.
type Bug struct {
	Name string
	// File is the source, from the top of the repository; Old, which is in it once,
	// becomes New.
	File, Old, New string
	// Under names the faults under which it shows; none: it shows under any.
	Under []string
}

// Build makes the program of a member with the bug in it. root is the top of the
// repository.
func (b Bug) Build(ctx context.Context, root, program string) error {
	changed, err := b.apply(root)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "bug-")
	if err != nil {
		return fmt.Errorf("make a folder for the changed source: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	source := filepath.Join(folder, filepath.Base(b.File))
	if err := os.WriteFile(source, changed, 0o600); err != nil {
		return fmt.Errorf("write the changed source: %w", err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, b.File): source}})
	if err != nil {
		return fmt.Errorf("write the overlay: %w", err)
	}
	list := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return fmt.Errorf("write the overlay: %w", err)
	}
	command := exec.CommandContext(ctx, "go", "build", "-overlay", list, "-o", program, "./test/storemember")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build with the bug %q: %w:\n%s", b.Name, err, out)
	}
	return nil
}

// apply returns the file with the bug.
func (b Bug) apply(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, b.File))
	if err != nil {
		return nil, fmt.Errorf("read the source for the bug %q: %w", b.Name, err)
	}
	if n := bytes.Count(text, []byte(b.Old)); n != 1 {
		return nil, fmt.Errorf("the bug %q cannot be planted: %s has its place %d times: adapt it to the source as it is now", b.Name, b.File, n)
	}
	return bytes.Replace(text, []byte(b.Old), []byte(b.New), 1), nil
}
