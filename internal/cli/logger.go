package cli

import (
	"io"
	"log/slog"

	"google.golang.org/grpc/grpclog"
)

// newLogger makes a log of a level and format, as --log-level and --log-format name them.
func newLogger(level, format string, to io.Writer) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, invalidValue(setting("log-level"), level, "debug, info, warn or error")
	}
	handler := &slog.HandlerOptions{Level: from}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(to, handler)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, handler)), nil
	default:
		return nil, invalidValue(setting("log-format"), format, "text or json")
	}
}

// redirectLibraryLogs sends what libraries write past our log into it: Tailscale's and the
// HTTP server's lines for Go's standard logger, and gRPC's errors.
func redirectLibraryLogs(log *slog.Logger) {
	slog.SetDefault(log) // takes over the standard logger too
	errors := slog.NewLogLogger(log.Handler(), slog.LevelError).Writer()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, errors))
}
