package apiserver

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"

	"github.com/go-logr/logr"
)

func TestOnlyMeaninglessUpstreamErrorsAreQuiet(t *testing.T) {
	for name, tc := range map[string]struct {
		message string
		err     error
		passes  bool
	}{
		"another member was first": {"Unhandled Error", errors.New(`kube-system/extension-apiserver-authentication failed with : configmaps "extension-apiserver-authentication" already exists`), false},
		"a client that left":       {"Unhandled Error", errors.New("apiserver was unable to write a JSON response: http: Handler timeout"), false},
		"an option nobody gave":    {"The manifest file is empty, ignoring.", nil, false},
		"a real error":             {"Unhandled Error", errors.New("disk full"), true},
		"an error by its message":  {"Failed to read allow list manifest", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := logr.FromSlogHandler(quieter{slog.NewTextHandler(&out, nil)})
			log.Error(tc.err, tc.message)
			log.Info("information is debugging")
			if passed := out.Len() > 0; passed != tc.passes {
				t.Errorf("passed on: %t, want %t: %s", passed, tc.passes, &out)
			}
		})
	}
}

// The link to upstream's logger is by name; when upstream renames it, the JSON
// on standard error is back.
func TestUpstreamStillHasTheLoggerThatIsReplaced(t *testing.T) {
	if etcd3ClientLogger == nil {
		t.Error("k8s.io/apiserver/pkg/storage/storagebackend/factory has no etcd3ClientLogger any more: see features.go")
	}
}
