import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.MetadataUtils;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import vitrine.v1.Search.QueryPart;
import vitrine.v1.Search.SearchRequest;
import vitrine.v1.VisualSearchGrpc;

/** Which products look like this photo? Arguments: HOST PORT COLLECTION PHOTO. */
public class SearchByPhoto {
  public static void main(String[] args) throws Exception {
    // Plain text, for this machine. Elsewhere: NettyChannelBuilder's default is TLS; leave `usePlaintext` out.
    ManagedChannel channel =
        NettyChannelBuilder.forAddress(args[0], Integer.parseInt(args[1])).usePlaintext().build();
    try {
      VisualSearchGrpc.VisualSearchBlockingStub stub = VisualSearchGrpc.newBlockingStub(channel);
      String token = System.getenv("VITRINE_TOKEN");
      if (token != null) {
        Metadata headers = new Metadata();
        headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
        stub = stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
      }
      var request =
          SearchRequest.newBuilder()
              .setCollection(args[2])
              .addQuery(QueryPart.newBuilder().setImage(ByteString.copyFrom(Files.readAllBytes(Path.of(args[3])))))
              .setK(5)
              .build();
      var answer = stub.withDeadlineAfter(10, TimeUnit.SECONDS).search(request);
      for (var result : answer.getResultsList()) {
        System.out.printf("%d %s %.3f%n", result.getRank(), result.getProductId(), result.getScore());
      }
      var coverage = answer.getCoverage();
      System.out.printf("%d of %d shards answered%n", coverage.getShardsAnswered(), coverage.getShardsTotal());
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus());
    } finally {
      channel.shutdownNow();
    }
  }
}
