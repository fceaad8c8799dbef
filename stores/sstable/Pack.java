import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** The five kinds of MessagePack value that a frame of {@link SnapshotReader} holds. */
final class Pack
{
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(1 << 10);
    private final DataOutputStream data = new DataOutputStream(bytes);

    int size()
    {
        return data.size();
    }

    void writeTo(DataOutputStream target) throws IOException
    {
        bytes.writeTo(target);
    }

    Pack array(int length)
    {
        return tagged(0xdd, length);
    }

    Pack text(String value)
    {
        return text(ByteBuffer.wrap(value.getBytes(StandardCharsets.UTF_8)));
    }

    Pack text(ByteBuffer value)
    {
        byte[] copy = new byte[value.remaining()];
        value.duplicate().get(copy);
        tagged(0xdb, copy.length);
        bytesOf(copy);
        return this;
    }

    Pack bool(boolean value)
    {
        return tag(value ? 0xc3 : 0xc2);
    }

    Pack nil()
    {
        return tag(0xc0);
    }

    Pack number(long value)
    {
        return tag(0xd3).long8(value);
    }

    Pack real(double value)
    {
        return tag(0xcb).long8(Double.doubleToRawLongBits(value));
    }

    private Pack tag(int tag)
    {
        bytesOf(new byte[] { (byte) tag });
        return this;
    }

    private Pack tagged(int tag, int length)
    {
        bytesOf(ByteBuffer.allocate(5).put((byte) tag).putInt(length).array());
        return this;
    }

    private Pack long8(long value)
    {
        bytesOf(ByteBuffer.allocate(8).putLong(value).array());
        return this;
    }

    private void bytesOf(byte[] some)
    {
        try
        {
            data.write(some);
        }
        catch (IOException error)
        {
            throw new IllegalStateException(error);
        }
    }
}
