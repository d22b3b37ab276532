package cli

import (
	"io"
	"log/slog"

	"google.golang.org/grpc/grpclog"
)

// newLogger makes the log that --log-level and --log-format ask for.
func newLogger(o options, to io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.LogLevel)); err != nil {
		return nil, wrong(setting("log-level"), o.LogLevel, "debug, info, warn or error")
	}
	handler := &slog.HandlerOptions{Level: level}
	switch o.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(to, handler)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, handler)), nil
	default:
		return nil, wrong(setting("log-format"), o.LogFormat, "text or json")
	}
}

// oneLog sends what libraries write past our log into it: Tailscale's and the
// HTTP server's lines for Go's standard logger, and gRPC's errors.
func oneLog(log *slog.Logger) {
	slog.SetDefault(log) // takes over the standard logger too
	errors := slog.NewLogLogger(log.Handler(), slog.LevelError).Writer()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, errors))
}
