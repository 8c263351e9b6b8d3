package postgresql

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Regression: the guard changed the owner of the promotion's file after it had
// appeared, and PostgreSQL had taken it by then: the promotion was called failed
// and the new primary was killed.
func TestAFileThatIsTakenInTheMomentItAppearsIsNoError(t *testing.T) {
	e := &place{cfg: Config{User: &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}}}
	path := filepath.Join(t.TempDir(), "promote")
	stop := make(chan struct{})
	var taker sync.WaitGroup
	taker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(path)
			}
		}
	})
	defer taker.Wait()
	defer close(stop)
	for range 300 {
		if err := e.writeOwned(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
