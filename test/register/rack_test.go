package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/drivertest"
	"tripod.dev/tripod/failover/driver/socket"
	"tripod.dev/tripod/test/freeport"
)

// takes is how long each change takes in these tests.
const takes = 10 * time.Millisecond

// racked is a rack as an agent reaches it: by the socket beside it.
type racked struct {
	*rack
	driver *socket.Client
}

func startRack(t *testing.T) racked {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	k := newRack(t.TempDir(), takes)
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	near, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- serveDriver(ctx, far, k) }()
	go func() { ended <- forward(ctx, near, far.Addr().String()) }()
	client, err := socket.New("register", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
		k.close()
	})
	return racked{k, client}
}

// bookAt is a dataset of a rack, with the address of its copy.
func bookAt(t *testing.T, name string) (driver.Dataset, string) {
	t.Helper()
	address := freeport.Addresses(t, 1)[0]
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return driver.Dataset{Namespace: "archive", Name: name, Cluster: "a", Parameters: map[string]string{"port": port}}, address
}

func TestACopyInARackConforms(t *testing.T) {
	k := startRack(t)
	book, address := bookAt(t, "one")
	drivertest.Run(t.Context(), t, drivertest.Rig{Driver: k.driver, Name: "register", Dataset: book, Address: address})
}

// accepts is true if somebody listens at address.
func accepts(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// Each copy has an address of its own, which its fence closes and no other one's.
func TestARackHoldsManyCopies(t *testing.T) {
	k := startRack(t)
	var books []driver.Dataset
	var at []string
	for _, name := range []string{"one", "two"} {
		book, address := bookAt(t, name)
		books, at = append(books, book), append(at, address)
		if _, err := k.driver.Promote(t.Context(), driver.Call{Incarnation: 1, Epoch: 1, Dataset: book, Primary: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.driver.Fence(t.Context(), driver.Call{Incarnation: 1, Epoch: 2, Dataset: books[0]}); err != nil {
		t.Fatal(err)
	}
	if accepts(at[0]) || !accepts(at[1]) {
		t.Errorf("the fenced one accepts: %t, the other one: %t", accepts(at[0]), accepts(at[1]))
	}
	answer := httptest.NewRecorder()
	k.routes().ServeHTTP(answer, httptest.NewRequest("GET", "/journal", nil))
	var journal []Deed
	if err := json.Unmarshal(answer.Body.Bytes(), &journal); err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, d := range journal {
		verbs = append(verbs, d.Dataset+" "+d.Verb)
		if took := time.Duration(d.Ended - d.Began); took < takes {
			t.Errorf("%s of %s took %v", d.Verb, d.Dataset, took)
		}
	}
	if want := []string{"archive/one promote", "archive/two promote", "archive/one fence"}; !slices.Equal(verbs, want) {
		t.Errorf("it did %q, want %q", verbs, want)
	}
}

func TestACopyInARackRefuses(t *testing.T) {
	k := startRack(t)
	broken, _ := bookAt(t, "one")
	broken.Parameters["refuses"] = "promote"
	nowhere := driver.Dataset{Namespace: "archive", Name: "two", Cluster: "a"}
	for _, book := range []driver.Dataset{broken, nowhere} {
		_, err := k.driver.Promote(t.Context(), driver.Call{Incarnation: 1, Epoch: 1, Dataset: book, Primary: "a"})
		if !errors.Is(err, driver.ErrRefused) {
			t.Errorf("%s: %v, want a refusal", book.Key(), err)
		}
	}
	if o := k.driver.Observe(t.Context(), nowhere); o.State != driver.StateUnknown || o.Message == "" {
		t.Errorf("it is seen as %+v", o)
	}
}
