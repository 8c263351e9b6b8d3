package hub

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tripod.dev/tripod/hub/encryption"
	hubstore "tripod.dev/tripod/hub/store"
	"tripod.dev/tripod/hub/term"
)

// openEncryption opens the keys with which the API server and the senses read and
// write: the hub's own, or an operator's configuration.
func (m *Member) openEncryption(context.Context) (err error) {
	path := m.config.EncryptionConfigFile
	if path == "" {
		path = m.identity.Files().Encryption
		if ring, err := encryption.ParseRing(m.identity.Encryption()); err == nil && len(ring) == 0 {
			m.logger.Warn("this hub keeps its objects in plain text: `tripodctl hub encryption rotate` encrypts them", "member", m.config.Name)
		}
	}
	// Plugins end with the process: the API server uses them until it has drained.
	if m.box, err = encryption.Open(context.Background(), path, "tripod-"+m.config.Name); err != nil {
		return err
	}
	keys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tripod", Subsystem: "encryption", Name: "keys",
		Help: "Keys of the hub's own that are in force here: 0 keeps objects in plain text, 2 or more is a rotation under way or cut short.",
	}, func() float64 {
		ring, err := encryption.ParseRing(m.identity.Encryption())
		if err != nil {
			return -1
		}
		return float64(len(ring))
	})
	if m.config.EncryptionConfigFile != "" {
		return nil // an operator's own are not counted
	}
	if err := m.metrics.Register(keys); err != nil {
		return fmt.Errorf("register the metric of the keys: %w", err)
	}
	return nil
}

// decrypted reads Clusters and Datasets below the API server, which encrypts them.
type decrypted struct {
	*hubstore.Store
	box *encryption.Box
}

// Decrypt implements term.Reader. Only what has changed is asked for: a heartbeat's answer
// rests on all of them, every second.
func (d decrypted) Decrypt(ctx context.Context, kv mvccpb.KeyValue) ([]byte, error) {
	kind, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), term.DefaultPrefix), "/")
	return d.box.Decrypt(ctx, schema.GroupResource{Group: "tripod.dev", Resource: kind}, kv.Key, kv.Value)
}
