import com.google.gson.Gson;
import io.grpc.CallOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A gRPC client that the tests drive: see integration/grpc/client.go. */
public final class Client {
  private static final class Order {
    String target;
    String method;
    int calls;
    long timeout;
    long within;
    boolean fresh;
    Map<String, String> headers = Map.of();
  }

  private static final class Answer {
    final Map<String, Integer> counts = new HashMap<>();
    final Map<String, Integer> errors = new HashMap<>();
  }

  private static final class Identity implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  private static final Map<String, ManagedChannel> channels = new HashMap<>();

  private static Answer run(Order order) {
    if (order.fresh && channels.containsKey(order.target)) {
      channels.remove(order.target).shutdownNow();
    }
    ManagedChannel channel =
        channels.computeIfAbsent(
            order.target,
            name -> Grpc.newChannelBuilder("xds:///" + name, InsecureChannelCredentials.create()).build());
    Metadata headers = new Metadata();
    order.headers.forEach(
        (name, value) -> headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    MethodDescriptor<byte[], byte[]> method =
        MethodDescriptor.<byte[], byte[]>newBuilder(new Identity(), new Identity())
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(order.method.substring(1))
            .build();
    Answer answer = new Answer();
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(order.within);
    for (int i = 0; i < order.calls && System.nanoTime() < end; i++) {
      try {
        byte[] name =
            ClientCalls.blockingUnaryCall(
                io.grpc.ClientInterceptors.intercept(
                    channel, MetadataUtils.newAttachHeadersInterceptor(headers)),
                method,
                CallOptions.DEFAULT.withDeadlineAfter(order.timeout, TimeUnit.SECONDS),
                new byte[0]);
        answer.counts.merge(new String(name, StandardCharsets.UTF_8), 1, Integer::sum);
      } catch (StatusRuntimeException e) {
        answer.errors.merge(
            e.getStatus().getCode() + ": " + e.getStatus().getDescription(), 1, Integer::sum);
      }
    }
    return answer;
  }

  public static void main(String[] args) throws IOException {
    Gson gson = new Gson();
    BufferedReader orders = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = orders.readLine(); line != null; line = orders.readLine()) {
      System.out.println(gson.toJson(run(gson.fromJson(line, Order.class))));
      System.out.flush();
    }
    System.exit(0);
  }
}
