package apiserver

import "testing"

func TestServerBecomesReady(t *testing.T) {
	startHub(t, nil)
}
