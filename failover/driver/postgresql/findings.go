package postgresql

import (
	"sync"

	"tripod.dev/tripod/failover/driver"
)

// findings are what resynchronisations found, by dataset.
type findings struct {
	mu       sync.Mutex
	diverged map[string]*driver.Diverged // until a resync went well
	accounts map[string]string           // of the last one that did
}

func newFindings() *findings {
	return &findings{diverged: map[string]*driver.Diverged{}, accounts: map[string]string{}}
}

func (f *findings) setDiverged(key string, found *driver.Diverged) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found == nil {
		delete(f.diverged, key)
		return
	}
	f.diverged[key] = found
}

// setAccount keeps what a resynchronisation measured, for the observations: it
// is told before anything is taken back, and after.
func (f *findings) setAccount(key, account string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts[key] = account
}

func (f *findings) divergedOf(key string) *driver.Diverged {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.diverged[key]
}

func (f *findings) accountOf(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accounts[key]
}
