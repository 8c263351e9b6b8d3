// Command register is the lab's example of replicated state that Tripod has no guard
// for, with its driver out of process.
//
//	register serve    one copy: an append-only list of lines. Clients write at its data
//	                  port, copies follow each other there; its control port is the API
//	                  that a driver is given, and may be told to lie (/lie?fence=true)
//	register drive    the driver beside an agent: hands on what it is told to the
//	                  control port that the dataset's parameter `control` names
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

	"google.golang.org/grpc"

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
		return errors.New("say serve or drive")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	data := flags.String("data", ":7700", "`address` of the data port")
	control := flags.String("control", ":7701", "`address` of the control port")
	volume := flags.String("volume", "/data", "`folder` that holds the copy")
	path := flags.String("socket", "/run/drivers/register.sock", "`path` of the driver's socket")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch arguments[0] {
	case "serve":
		return serve(ctx, *volume, *data, *control)
	case "drive":
		return drive(ctx, *path)
	}
	return fmt.Errorf("%q is neither serve nor drive", arguments[0])
}

func serve(ctx context.Context, volume, data, control string) error {
	r, err := open(volume, data)
	if err != nil {
		return err
	}
	defer r.close()
	server := &http.Server{Addr: control, Handler: r.routes(), ReadHeaderTimeout: 5 * time.Second}
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

func drive(ctx context.Context, path string) error {
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
	server := grpc.NewServer()
	socket.Register(server, relay{})
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
