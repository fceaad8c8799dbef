/** The files are not what they should be, in words for the one who named them. */
final class Wrong extends RuntimeException
{
    Wrong(String words)
    {
        super(words);
    }
}
