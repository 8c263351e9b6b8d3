package gateway

import (
	"sync"
	"time"
)

// outageShort is how long clients that look for what a server can do are told to
// try again by themselves: longer than a failover takes. After that a person is to
// read why; kubectl would try five times ten times before.
const outageShort = 30 * time.Second

// outages are the applications that could not be answered for. It is safe for
// concurrent use.
type outages struct {
	mu   sync.Mutex
	seen map[applicationName]outage
}

// outage is a row of failures without a pause of outageShort between two.
type outage struct{ first, last time.Time }

func newOutages() *outages { return &outages{seen: map[applicationName]outage{}} }

// isShort notes a failure at now, and says whether the row that it belongs to has
// just begun.
func (o *outages) isShort(name applicationName, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for other, row := range o.seen {
		if now.Sub(row.last) >= outageShort {
			delete(o.seen, other)
		}
	}
	row, known := o.seen[name]
	if !known {
		row.first = now
	}
	row.last = now
	o.seen[name] = row
	return now.Sub(row.first) < outageShort
}
