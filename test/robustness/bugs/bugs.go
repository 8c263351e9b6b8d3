// Package bugs plants bugs in the store, to see that the suite finds them. A bug is
// a change of one file that only a build with an overlay sees: no program that is
// delivered can have it.
package bugs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"tripod.dev/tripod/test/robustness/wall"
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
	if err := wall.Build(ctx, root, program, map[string][]byte{filepath.Join(root, b.File): changed}, b.Clocks()); err != nil {
		return fmt.Errorf("with the bug %q: %w", b.Name, err)
	}
	return nil
}

// Clocks says that the bug shows when wall clocks jump only.
func (b Bug) Clocks() bool { return slices.Contains(b.Under, "wall clocks jump") }

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
