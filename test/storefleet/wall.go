package storefleet

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// wallVariable names the file by which the wall clock of a member that was built for
// it is moved (package robustness/wall); other programs do not look at it.
const wallVariable = "STOREMEMBER_WALL"

func (m *Member) wallFile() string { return filepath.Join(m.Folder, "wall") }

// MoveWall sets how far ahead of the machine's the member's wall clock is, to the
// second, also before a start.
func (m *Member) MoveWall(ahead time.Duration) error {
	// In place: the member has mapped the file.
	file, err := os.OpenFile(m.wallFile(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("move the wall clock of %s: %w", m.name, err)
	}
	_, err = file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0)
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("move the wall clock of %s: %w", m.name, err)
	}
	return nil
}
