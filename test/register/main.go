// Command register is the lab's example of replicated state that Tripod has no guard
// for, with its driver out of process.
//
//	register serve    one copy: an append-only list of lines. Clients write at its data
//	                  port, copies follow each other there; its control port is the API
//	                  that a driver is given, and may be told to lie (/lie?fence=true)
//	register rack     copies of many datasets in one process, which is their driver too:
//	                  each has the data port that its dataset's parameter `port` names
//	register drive    the driver beside an agent: hands on what it is told to the
//	                  control port that the dataset's parameter `control` names, or to a
//	                  rack
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/socket"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error("register ended", "error", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(arguments) == 0 {
		return errors.New("say serve, rack or drive")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	data := flags.String("data", ":7700", "`address` of the data port")
	control := flags.String("control", ":7701", "`address` of the control port; of a rack, where the driver listens")
	journal := flags.String("journal", ":7702", "`address` where a rack tells what it has done")
	takes := flags.Duration("takes", 0, "how long each change takes in a rack")
	volume := flags.String("volume", "/data", "`folder` that holds the copies")
	path := flags.String("socket", "/run/drivers/register.sock", "`path` of the driver's socket")
	rack := flags.String("rack", "", "`HOST:PORT` of a rack that the driver hands everything on to")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch arguments[0] {
	case "serve":
		return serve(ctx, *volume, *data, *control)
	case "rack":
		return serveRack(ctx, newRack(*volume, *takes), *control, *journal)
	case "drive":
		return drive(ctx, *path, *rack)
	}
	return fmt.Errorf("%q is none of serve, rack and drive", arguments[0])
}

func serve(ctx context.Context, volume, data, control string) error {
	r, err := open(volume, data, beat)
	if err != nil {
		return err
	}
	defer r.close()
	return listenHTTP(ctx, control, r.routes())
}

func serveRack(ctx context.Context, k *rack, control, journal string) error {
	defer k.close()
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serveDriver(ctx, listener, k) })
	group.Go(func() error { return listenHTTP(ctx, journal, k.routes()) })
	return group.Wait()
}

// listenHTTP serves until ctx ends.
func listenHTTP(ctx context.Context, address string, routes http.Handler) error {
	server := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-ended
	return nil
}

func drive(ctx context.Context, path, rack string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of a driver before this one: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	// Only the agent, which runs as the same user, may open it.
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if rack != "" {
		return forward(ctx, listener, rack)
	}
	return serveDriver(ctx, listener, relay{})
}

// serveDriver serves the driver's contract until ctx ends.
func serveDriver(ctx context.Context, listener net.Listener, d driver.Driver) error {
	server := grpc.NewServer()
	socket.Register(server, d)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		return err
	}
	<-ended
	return nil
}
